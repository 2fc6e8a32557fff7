// Objects with a name: cards on the home screen, and keeping what is looked for under a name.

import { newSearch, writePlace } from "./address.js";
import { ask, pictureOf } from "./api.js";
import { announce, element, plural, showProblem } from "./elements.js";

/** Show a card for each object that the index knows by name; nothing where there is none. */
export async function showNames(section) {
  const { names } = await ask("names");
  section.hidden = names.length === 0;
  section.querySelector("ul").replaceChildren(...names.map(card));
}

function card({ name, n_photos }) {
  const photo = { name };
  const image = element("img", { alt: "", loading: "lazy", width: 120, height: 120 });
  // Its photos may be gone; the name is still there.
  image.addEventListener("error", () => image.remove());
  image.src = pictureOf(photo, 160);
  const link = element("a", {}, image, element("span", {}, name));
  link.href = writePlace({ screen: "matches", search: newSearch({ photo }) });
  link.title = `look for ${name}, by ${plural(n_photos, "photo")}`;
  return element("li", {}, link);
}

/** A form that keeps what is looked for under a name. searchOf: gives the search. */
export function keepForm(form, screen, searchOf) {
  const input = form.querySelector("input");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (!name) return input.focus();
    const { object, also, not } = searchOf();
    button.disabled = true;
    try {
      showProblem(screen, null);
      const { n_photos } = await ask("names", { name, object, also, not });
      input.value = "";
      const line = `Kept as ${name}, by ${plural(n_photos, "photo")}.`;
      screen.querySelector(".told").textContent = line;
      announce(line);
    } catch (error) {
      showProblem(screen, error);
    } finally {
      button.disabled = false;
    }
  });
}
