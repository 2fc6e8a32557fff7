// The screen of recurring objects: a grid of them, or all photos of one.

import { newSearch, writePlace } from "./address.js";
import { ask, forgetAnswers } from "./api.js";
import { copyOf, copyable, element, outline, pictureParts, plural, showProblem } from "./elements.js";
import { move, nameOf } from "./matches.js";
import { keepForm } from "./names.js";

const TITLE = "What recurs in your photos";
const COVER = 320; // pixels
// The photos that a search asks with; a name is kept by as many.
const MOST_VIEWS = 5;

export function recurringScreen() {
  const screen = copyOf("objects-screen");
  const part = (name) => screen.querySelector(name);
  const grid = element("ol", { className: "recurring" });
  let following = 1; // the first object that the grid does not show yet
  let shown = null; // the object that is open
  let left = 0; // how far the grid was scrolled
  let newest = 0; // of what was asked for: other answers come too late

  function update({ object }) {
    const before = shown?.number;
    if (object) return open(object);
    shown = null;
    title(TITLE);
    for (const hidden of [".one", ".back"]) part(hidden).hidden = true;
    part(".found").replaceChildren(grid);
    following = 1;
    // Photos may have been compared meanwhile.
    load(() => Math.max(60, grid.childElementCount), (page) => {
      grid.replaceChildren();
      add(page);
      if (before) grid.querySelector(`[data-number="${before}"] a`)?.focus({ preventScroll: true });
      scrollTo(0, before ? left : scrollY);
    });
  }

  async function load(count, show) {
    const number = ++newest;
    screen.setAttribute("aria-busy", "true");
    showProblem(screen, null);
    try {
      const page = await ask(`objects?after=${following}&limit=${Math.min(500, count())}`);
      if (number === newest) show(page);
    } catch (error) {
      if (number === newest) showProblem(screen, error, () => load(count, show));
    } finally {
      if (number === newest) screen.removeAttribute("aria-busy");
    }
  }

  function add({ objects, next, n_objects, waiting, command }) {
    grid.append(...objects.map(gridCard));
    following = next;
    part(".more").hidden = next === null;
    part(".told").textContent = n_objects
      ? `${plural(n_objects, "object")} in two photos or more, those in most photos first.`
      : "No object is known yet to be in two photos.";
    showWaiting(part(".waiting"), waiting, command);
  }

  function open(number) {
    if (!shown && grid.isConnected) left = scrollY;
    const isOther = shown?.number !== number;
    shown = { number };
    for (const visible of [".one", ".back"]) part(visible).hidden = false;
    for (const hidden of [".more", ".waiting"]) part(hidden).hidden = true;
    if (isOther) {
      part(".found").replaceChildren();
      part(".keep output").textContent = part(".told").textContent = "";
    }
    following = number;
    load(() => 1, ({ objects: [found] }) => {
      part(".one").hidden = !found;
      if (!found) {
        title(TITLE);
        part(".told").textContent = "There is no such object any more.";
        return;
      }
      shown = found;
      showObject(found);
      if (isOther) {
        scrollTo(0, 0);
        part("h1").focus({ preventScroll: true });
      }
    });
  }

  function showObject({ number, photos }) {
    title(`An object in ${plural(photos.length, "photo")}`);
    part(".told").textContent = `Object ${number}.`;
    part(".look").href = writePlace({ screen: "matches", search: searchFor(photos) });
    part(".found").replaceChildren(element("ol", { className: "cards" }, ...photos.map(photoCard)));
  }

  function title(text) {
    part("h1").textContent = text;
    document.title = `${text} – Waldo`;
  }

  part(".more").addEventListener("click", () => load(() => 60, add));
  keepForm(part(".keep"), async (name) => {
    const { number, photos } = shown;
    const told = await ask(`objects/${number}/name`, { name, cover: photos[0].id });
    forgetAnswers();
    return told;
  });

  function key(event) {
    const steps = { j: 1, k: -1 };
    if (event.key in steps) move(screen, steps[event.key]);
    if (event.key === "o") document.activeElement.closest(".card")?.querySelector("a").click();
    if (event.key === "Escape" && shown) part(".back").click();
  }

  return { element: screen, update, key };
}

function gridCard({ number, cover, photos }) {
  const count = plural(photos.length, "photo");
  const alt = `object ${number}, in ${count}`;
  const image = element("img", { alt, loading: "lazy", decoding: "async", width: 160, height: 160 });
  image.addEventListener("error", () =>
    image.replaceWith(element("span", { className: "gone" }, `${alt}, which are gone or were changed`)),
  );
  image.src = `${cover}?size=${COVER}&of=${photos[0].id}`; // numbers may change
  const link = element("a", { className: "picture" }, image);
  link.href = writePlace({ screen: "objects", object: number });
  const made = element("li", { className: "card" }, link, element("span", {}, count));
  made.dataset.number = number;
  return made;
}

function photoCard({ id, path, box, width, height }) {
  const name = nameOf(path);
  const link = element("a", { className: "picture" });
  link.href = writePlace({ screen: "photo", search: newSearch({ photo: { id }, box }), shown: id });
  link.style.setProperty("--ratio", width / height);
  link.append(...pictureParts({ id }, width, height, 640, name, outline(box, "found")));
  const head = element("div", { className: "head" }, element("span", { className: "name", title: path }, name));
  const made = element("li", { className: "card" }, link, head);
  made.dataset.id = id;
  return made;
}

/** A search for an object by its strongest photos. */
function searchFor([cover, ...others]) {
  const view = ({ id, box }) => ({ photo: { id }, box });
  const also = others.slice(0, MOST_VIEWS - 1).map(view);
  return { ...newSearch(view(cover)), also };
}

function showWaiting(line, waiting, command) {
  line.hidden = waiting === 0;
  line.replaceChildren(
    `${plural(waiting, "photo")} not compared yet. This brings it up to date, in a terminal: `,
    ...copyable(command, "the command"),
  );
}
