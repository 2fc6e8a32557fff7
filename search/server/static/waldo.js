// The page: which screen is shown, and how people get from one to the next. Each screen is a module
// with a function that builds it. It returns {element, update}: update(place) shows a place, and is
// called again whenever the address changes; only the address leads from one state to another.

import { albumScreen } from "./album.js";
import { readPlace, writePlace } from "./address.js";
import { Problem, theCollection } from "./api.js";
import { plural, showProblem } from "./elements.js";
import { homeScreen, receivePhoto } from "./home.js";
import { markScreen } from "./mark.js";
import { matchesScreen } from "./matches.js";
import { photoScreen } from "./photo.js";
import { recurringScreen } from "./recurring.js";

const SCREENS = {
  home: homeScreen, mark: markScreen, matches: matchesScreen, photo: photoScreen, album: albumScreen,
  objects: recurringScreen,
};
// These come back as they were left: what was loaded, how far it was scrolled, what had the focus.
const KEPT = ["home", "matches"];

const main = document.querySelector("#screen");
const built = {};
let current = { name: null };

/**
 * Lead to another place. undo: it changes what is searched for, and people may take it back.
 * quietly: as a small step of the same change, which is no step back of its own.
 */
function go(place, { undo = false, quietly = false } = {}) {
  const address = writePlace(place);
  if (quietly) history.replaceState(history.state, "", address);
  else history.pushState({ undo }, "", address);
  show();
}

function show() {
  const place = readPlace(location.hash);
  if (place.screen !== current.name) change(place.screen);
  current.screen.update(place, history.state?.undo === true);
  // After the update, for the home screen asks for the collection anew.
  theCollection().then(showCollection, () => {}); // the home screen says what is wrong
}

function showCollection({ n_photos, index }) {
  const line = document.querySelector("#collection");
  line.textContent = plural(n_photos, "photo");
  line.title = index;
}

function change(name) {
  const isFirst = current.name === null;
  if (!isFirst) {
    current.screen.left = { scroll: scrollY, focus: document.activeElement };
    current.screen.leave?.();
  }
  const before = KEPT.includes(name) ? built[name] : undefined;
  const screen = before ?? SCREENS[name](go);
  built[name] = screen;
  current = { name, screen };
  main.replaceChildren(screen.element);
  document.title = `${screen.element.querySelector("h1").textContent} – Waldo`;
  const { scroll = 0, focus = null } = screen.left ?? {};
  if (!isFirst) {
    const target = screen.element.contains(focus) ? focus : screen.element.querySelector("h1");
    target.focus({ preventScroll: true });
  }
  scrollTo(0, scroll);
}

function takeDrops() {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (!take(event.dataTransfer)) showProblem(current.screen.element, new Problem("that is no file; drop a photo file", 0));
  });
  addEventListener("paste", (event) => take(event.clipboardData));
}

/** A photo may be dropped and pasted on any screen. Whether a file was given. */
function take({ files }) {
  if (files.length) receivePhoto(files[0], go, current.screen.element);
  return files.length > 0;
}

/** Keys of the screen, but not while somebody writes. */
function takeKeys() {
  addEventListener("keydown", (event) => {
    const writes = event.target.matches("input:not([type=checkbox], [type=radio]), select");
    const isShortcut = event.ctrlKey || event.metaKey || event.altKey;
    if (!writes && !isShortcut && !document.querySelector("dialog[open]")) {
      current.screen.key?.(event);
    }
  });
}

history.scrollRestoration = "manual";
addEventListener("popstate", show);
takeDrops();
takeKeys();
show();
