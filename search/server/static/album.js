// The album screen: the photos that show an object with a name. People say which are right, and what
// they say is kept.

import { newSearch, writePlace } from "./address.js";
import { ask, forgetAnswers } from "./api.js";
import { announce, copyOf, element, outline, pictureParts, plural, showProblem } from "./elements.js";
import { move, nameOf } from "./matches.js";

export function albumScreen() {
  const screen = copyOf("album-screen");
  const found = screen.querySelector(".found");
  const told = screen.querySelector(".told");
  let name = null;
  let newest = 0; // of the albums that were asked for: others come too late

  function update(place) {
    const { photo } = place.search.object;
    if (name !== photo.name) found.replaceChildren();
    name = photo.name;
    screen.querySelector("h1").textContent = name;
    document.title = `${name} – Waldo`;
    screen.querySelector(".look").href = writePlace({ screen: "matches", search: newSearch({ photo }) });
    load(() => ask(`names/${encodeURIComponent(name)}/album`));
  }

  async function load(request) {
    const number = ++newest;
    screen.setAttribute("aria-busy", "true");
    showProblem(screen, null);
    try {
      const album = await request();
      if (number === newest) show(album);
    } catch (error) {
      if (number === newest) showProblem(screen, error, () => load(request));
    } finally {
      if (number === newest) screen.removeAttribute("aria-busy");
    }
  }

  function show({ photos, threshold, waiting, estimated }) {
    const focused = document.activeElement.closest(".card")?.dataset.id;
    const isIn = photos.filter((photo) => photo.shown);
    const isOut = photos.filter((photo) => photo.said === false);
    const others = photos.filter((photo) => !photo.shown && photo.said !== false);
    const isMore = screen.querySelector(".maybe")?.open;
    told.textContent = [
      `${plural(isIn.length, "photo")} of it.`,
      threshold === null ? "" : "What you said decides which are shown.",
      waiting ? `${plural(waiting, "photo")} not compared yet: run \`waldo index\`.` : "",
      waiting || estimated ? "" : "There are too few other photos to tell how likely each shows it.",
    ].join(" ");
    found.replaceChildren(
      element("ol", { className: "cards" }, ...isIn.map(card)),
      ...folded("maybe", "that may show it", others),
      ...folded("refused", "that you refused", isOut),
    );
    if (isMore) screen.querySelector(".maybe")?.setAttribute("open", "");
    focusAgain(focused);
  }

  function folded(kind, what, photos) {
    if (!photos.length) return [];
    const title = element("summary", {}, `${photos.length.toLocaleString("en")} ${what}`);
    return [element("details", { className: `chance ${kind}` }, title, element("ol", { className: "cards" }, ...photos.map(card)))];
  }

  function card(photo) {
    const made = copyOf("album-card");
    const file = nameOf(photo.path);
    made.dataset.id = photo.id;
    const link = made.querySelector(".picture");
    link.href = writePlace({ screen: "photo", search: newSearch({ photo: { name } }), shown: photo.id });
    link.style.setProperty("--ratio", photo.width / photo.height);
    const boxes = photo.box ? [outline(photo.box, "found")] : [];
    link.append(...pictureParts({ id: photo.id }, photo.width, photo.height, 640, file, ...boxes));
    made.querySelector(".name").textContent = file;
    made.querySelector(".name").title = photo.path;
    const isKnown = photo.said === null && photo.probability !== null;
    const word = made.querySelector(".word");
    word.textContent = photo.said ? "your yes" : isKnown ? `${Math.round(100 * photo.probability)} %` : "";
    word.hidden = !word.textContent;
    made.querySelector(".about").textContent = aboutPhoto(photo);
    for (const [kind, shows, label] of [["yes", true, `Yes, ${file} shows ${name}`], ["no", false, `Not this one: ${file}`]]) {
      const button = made.querySelector(`.${kind}`);
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-pressed", photo.said === shows);
      button.addEventListener("click", () => say(photo, shows, file));
    }
    return made;
  }

  function say(photo, shows, file) {
    const about = [{ photo: { id: photo.id } }];
    const asked = name;
    load(async () => {
      const album = await ask(`names/${encodeURIComponent(asked)}/verdicts`, shows ? { yes: about } : { no: about });
      forgetAnswers(); // a search by the name asks with this photo, too
      announce(shows ? `${file} shows ${asked}` : `${file} does not show ${asked}`);
      return album;
    });
  }

  /** The card may have left the album; then the focus goes to the first one. */
  function focusAgain(id) {
    if (!id) return;
    const card = screen.querySelector(`.card[data-id="${id}"]`);
    const link = card?.checkVisibility() ? card.querySelector(".picture") : found.querySelector(".picture");
    (link ?? screen.querySelector("h1")).focus();
  }

  function key(event) {
    const steps = { j: 1, k: -1 };
    if (event.key in steps) move(screen, steps[event.key]);
    const focused = document.activeElement.closest(".card");
    const words = { y: ".yes", n: ".no" };
    if (event.key in words) focused?.querySelector(words[event.key]).click();
    if (event.key === "o") focused?.querySelector("a").click();
  }

  return { element: screen, update, key };
}

function aboutPhoto({ rivals, lost_to }) {
  if (lost_to !== null) return `likelier to be ${lost_to}`;
  return rivals.length ? `also like ${rivals.join(", ")}` : "";
}
