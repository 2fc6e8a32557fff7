// The mark screen: say by a box, a point or a word which object in a photo is meant. What the search
// will take as the object stays bright, and the rest is dimmed.

import { ask, pictureOf, sizeOf } from "./api.js";
import { announce, copyOf, drawing, element, outline, pointMark, shape, showProblem } from "./elements.js";

// A pointer that moves less between down and up was a click. In pixels of the screen.
const CLICK = 6;
// Longest side of the canvas that dims, pixels; the browser scales it up.
const CANVAS = 1280;
const PAUSE = 120; // milliseconds without a change after which the preview is asked for
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function markScreen(go) {
  const screen = copyOf("mark-screen");
  const stage = screen.querySelector(".stage");
  const word = screen.querySelector(".class");
  const undo = screen.querySelector(".undo");
  const preview = previewOn(screen);
  let place = null;
  let size = null; // [width, height] of the photo, once it is known

  async function update(next, canUndo) {
    const photo = JSON.stringify(next.search.object.photo);
    const isOther = !place || photo !== JSON.stringify(place.search.object.photo);
    place = next;
    undo.disabled = !canUndo;
    word.value = place.search.object.class ?? "";
    showProblem(screen, null);
    if (isOther) await open();
    else if (size) draw();
  }

  async function open() {
    const { photo } = place.search.object;
    size = null;
    try {
      showProblem(screen, null);
      size = place.size ?? (await sizeOf(photo));
      stage.style.setProperty("--ratio", size[0] / size[1]);
      showPhoto(screen, photo);
      draw();
      stage.focus({ preventScroll: true });
    } catch (error) {
      showProblem(screen, error, open);
    }
  }

  function draw(drawn = null) {
    stage.querySelector("svg")?.remove();
    stage.append(drawing(...size, ...marks(place.search.object, size), ...(drawn ? [drawn] : [])));
    if (!drawn) preview(place.search.object, size);
  }

  /** Another object in the same photo. */
  function take(object, options = { undo: true }) {
    showProblem(screen, null);
    go({ ...place, search: { ...place.search, object } }, options);
  }

  function mode() {
    return screen.querySelector("input[name=mode]:checked").value;
  }

  function dragged(box, isClick, isOver) {
    const { object } = place.search;
    if (!isOver) draw(outline(box, mode() === "box" ? "asked" : mode()));
    else if (isClick && mode() === "box") take({ ...withoutRegion(object), point: box.slice(0, 2) });
    else if (isClick) draw();
    else if (mode() === "box") take({ ...withoutRegion(object), box });
    else if (mode() === "add" && !isMeant(object)) take({ ...object, box }); // nothing to add it to yet
    else take({ ...object, [mode()]: [...(object[mode()] ?? []), box] });
  }

  function clear() {
    const { photo } = place.search.object;
    if (Object.keys(place.search.object).length > 1) take({ photo });
    announce("nothing is marked");
  }

  function search() {
    const { object } = place.search;
    if (!isMeant(object)) {
      showProblem(screen, { message: "Drag a box around the object first, or say what it is.", status: 0 });
      stage.focus();
    } else {
      go({ ...place, screen: "matches" });
    }
  }

  function key(event) {
    if (event.key === "Escape") clear();
    if (!stage.contains(event.target) || !size) return;
    if (event.key === "Enter") search();
    if (event.key in MOVES) {
      event.preventDefault();
      const { object } = place.search;
      const isFirst = !object.box && !object.point;
      take(nudged(object, MOVES[event.key], event.shiftKey, size), { undo: true, quietly: !isFirst });
    }
  }

  followPointer(stage, () => size, dragged);
  completeWord(word, screen.querySelector("datalist"), () => {
    const text = word.value.trim();
    const { class: before, ...object } = place.search.object;
    if (text !== (before ?? "")) take(text ? { ...object, class: text } : object);
  });
  undo.addEventListener("click", () => history.back());
  screen.querySelector(".clear").addEventListener("click", clear);
  screen.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  return { element: screen, update, key };
}

/** Put a photo on the stage. Where it cannot be shown, asking for it once more tells why. */
function showPhoto(screen, photo) {
  const image = screen.querySelector(".stage img");
  image.alt = "the photo to mark the object in";
  image.onerror = async () => {
    const response = await fetch(pictureOf(photo, 1280)).catch(() => null);
    const told = await response?.json().catch(() => null);
    showProblem(screen, { message: told?.error ?? "the photo cannot be shown", status: response?.status ?? 0 });
    screen.querySelector(".problem").append(" ", element("a", { href: "#" }, "Choose another photo"));
  };
  image.src = pictureOf(photo, 1280);
}

function withoutRegion({ photo, class: name }) {
  return name ? { photo, class: name } : { photo };
}

/** Whether it says which object is meant; areas alone do not. */
function isMeant({ box, point, class: name }) {
  return Boolean(box || point || name);
}

/** What people drew, over the photo. */
function marks(object, [width, height]) {
  const side = Math.max(width, height);
  const drawn = [];
  if (object.box) drawn.push(outline(object.box, "asked"));
  if (object.point) drawn.push(pointMark(object.point, 0.015 * side));
  for (const [name, sign] of [["add", "+"], ["remove", "−"]]) {
    for (const box of object[name] ?? []) {
      const text = { x: box[0] + 0.01 * side, y: box[1] + 0.04 * side, "font-size": 0.045 * side };
      drawn.push(outline(box, name), shape("text", { ...text, class: name }, sign));
    }
  }
  return drawn;
}

/** An object whose box or point is moved one step, or sized; in the middle if it had none. */
function nudged(object, [dx, dy], sizes, [width, height]) {
  const step = Math.max(1, Math.round(Math.max(width, height) / 200));
  const limited = (value, most) => Math.min(Math.max(value, 0), most);
  if (object.point) {
    const [x, y] = object.point;
    return { ...object, point: [limited(x + step * dx, width - 1), limited(y + step * dy, height - 1)] };
  }
  const middle = [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4].map(Math.round);
  const [x0, y0, x1, y1] = object.box ?? middle;
  if (!object.box) return { ...object, box: middle };
  if (sizes) {
    const right = Math.max(x0 + step, limited(x1 + step * dx, width));
    const bottom = Math.max(y0 + step, limited(y1 + step * dy, height));
    return { ...object, box: [x0, y0, right, bottom] };
  }
  const left = limited(x0 + step * dx, width - (x1 - x0));
  const top = limited(y0 + step * dy, height - (y1 - y0));
  return { ...object, box: [left, top, left + x1 - x0, top + y1 - y0] };
}

/**
 * Mouse, pen and finger alike: dragged(box, isClick, isOver) is told of each move and of the end.
 * size(): [width, height] of the photo; boxes are in its pixels.
 */
function followPointer(stage, size, dragged) {
  let start = null;

  function boxTo(event) {
    const { left, top, width, height } = stage.getBoundingClientRect();
    const corners = [start, event].map(({ clientX, clientY }) => [
      Math.round(Math.min(Math.max((clientX - left) / width, 0), 1) * size()[0]),
      Math.round(Math.min(Math.max((clientY - top) / height, 0), 1) * size()[1]),
    ]);
    const [[ax, ay], [bx, by]] = corners;
    return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  }

  function isClick({ clientX, clientY }) {
    return Math.hypot(clientX - start.clientX, clientY - start.clientY) < CLICK;
  }

  stage.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0 || !size()) return;
    stage.setPointerCapture(event.pointerId);
    start = { clientX: event.clientX, clientY: event.clientY };
  });
  stage.addEventListener("pointermove", (event) => {
    if (start && !isClick(event)) dragged(boxTo(event), false, false);
  });
  stage.addEventListener("pointerup", (event) => {
    if (!start) return;
    const box = boxTo(event);
    // A drag along one line holds no area: it is meant as a click.
    const click = isClick(event) || box[0] === box[2] || box[1] === box[3];
    start = null;
    dragged(box, click, true);
  });
  stage.addEventListener("pointercancel", () => (start = null));
  // One finger draws and is no gesture, whose fling would swallow the next tap; two may still zoom.
  const drawsAlone = (event) => event.touches.length === 1 && event.preventDefault();
  stage.addEventListener("touchstart", drawsAlone, { passive: false });
}

/** Complete a word over those that the model knows; changed() is told when one is chosen. */
function completeWord(field, list, changed) {
  let known = [];
  field.addEventListener("input", async () => {
    const word = field.value;
    if (!known.includes(word)) {
      const told = await ask(`words?prefix=${encodeURIComponent(word)}`).catch(() => ({ words: [] }));
      if (field.value !== word) return; // more was typed meanwhile
      known = told.words;
      list.replaceChildren(...known.map((value) => element("option", { value })));
    }
    if (known.includes(word)) changed();
  });
  field.addEventListener("change", changed);
}

/** Shows what would be taken as the object, soon after it is told of one. */
function previewOn(screen) {
  const canvas = screen.querySelector("canvas");
  const told = screen.querySelector(".told");
  let waiting = null;
  let asking = null;
  let hasFailed = false; // so that success takes away its own line alone

  return (object, size) => {
    clearTimeout(waiting);
    asking?.abort();
    const isEmpty = Object.keys(object).length === 1;
    told.textContent = isEmpty ? "" : "…";
    if (isEmpty) canvas.width = canvas.height = 0;
    else waiting = setTimeout(() => showPreview(object, size), PAUSE);
  };

  async function showPreview(object, size) {
    asking = new AbortController();
    try {
      const { cells, warning } = await ask("preview", object, asking.signal);
      dim(canvas, cells, size);
      if (hasFailed) showProblem(screen, null);
      hasFailed = false;
      told.textContent = warning ?? "The bright part is taken as the object.";
      told.classList.toggle("warning", warning !== null);
    } catch (error) {
      if (error.name === "AbortError") return;
      hasFailed = true;
      told.textContent = "";
      showProblem(screen, error);
    }
  }
}

/** Dim all but the cells, boxes in the photo's pixels. */
function dim(canvas, cells, [width, height]) {
  const scale = Math.min(1, CANVAS / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(0 0 0 / 62%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const cell of cells) {
    // Whole pixels: fractions of one would leave hairlines between neighbours.
    const [x0, y0, x1, y1] = cell.map((value) => Math.round(value * scale));
    context.clearRect(x0, y0, x1 - x0, y1 - y0);
  }
}
