// Objects with a name: cards on the home screen, and keeping what is looked for under a name.

import { newSearch, writePlace } from "./address.js";
import { ask, forgetAnswers, pictureOf, Problem } from "./api.js";
import { announce, button, element, plural, showProblem } from "./elements.js";

/** Show a card for each object that the index knows by name; nothing where there is none. */
export async function showNames(screen) {
  const { names } = await ask("names");
  const section = screen.querySelector(".named");
  section.hidden = names.length === 0;
  section.querySelector("ul").replaceChildren(...names.map((named) => card(named, screen)));
}

function card({ name, n_photos, n_shown }, screen) {
  const photo = { name };
  const image = element("img", { alt: "", loading: "lazy", width: 120, height: 120 });
  // Its photos may be gone; the name is still there.
  image.addEventListener("error", () => image.remove());
  image.src = pictureOf(photo, 160);
  const link = element("a", {}, image, element("span", {}, name));
  link.href = writePlace({ screen: "album", search: newSearch({ photo }) });
  link.title = `${plural(n_shown, "photo")} of ${name}, found by ${plural(n_photos, "photo")}`;
  return element("li", {}, link, forgetButton(name, () => forget(name, screen)));
}

/** It asks back at the first press; the second is meant. Esc, and going elsewhere, take it back. */
function forgetButton(name, confirmed) {
  const pressed = button("", (event) => {
    if (event.detail > 1) return; // the rest of a double click
    if (pressed.classList.contains("asks")) return confirmed();
    askBack(true);
    pressed.focus(); // not every browser does that, and only what has the focus can lose it
    announce(`press once more to forget ${name}`);
  });
  function askBack(isAsked) {
    pressed.classList.toggle("asks", isAsked);
    pressed.textContent = isAsked ? `Forget ${name}?` : "Forget";
    pressed.setAttribute("aria-label", isAsked ? pressed.textContent : `Forget ${name}`);
  }
  pressed.addEventListener("keydown", (event) => {
    if (event.key === "Escape") askBack(false);
    if (event.repeat) event.preventDefault(); // a key that is held is pressed once
  });
  pressed.addEventListener("blur", () => askBack(false));
  askBack(false);
  return pressed;
}

async function forget(name, screen) {
  try {
    showProblem(screen, null);
    await ask(`names/${encodeURIComponent(name)}`, undefined, undefined, "DELETE");
    forgetAnswers();
    await showNames(screen);
    screen.querySelector("h1").focus();
    announce(`${name} is forgotten`);
  } catch (error) {
    showProblem(screen, error);
  }
}

/** A form that keeps an object under a name. keep(name): asks the server to. */
export function keepForm(form, keep) {
  const input = form.querySelector("input");
  const button = form.querySelector("button");
  const said = form.querySelector("output");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    said.classList.remove("bad");
    const name = input.value.trim();
    if (!name) return input.focus();
    button.disabled = true;
    try {
      const { n_photos } = await keep(name);
      forgetAnswers();
      input.value = "";
      said.textContent = `Kept as ${name}, by ${plural(n_photos, "photo")}.`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      said.textContent = error.message;
      said.classList.add("bad");
    } finally {
      button.disabled = false;
    }
  });
}
