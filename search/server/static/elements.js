// What the screens are made of: templates, pictures with something drawn over them, lines that tell.

import { pictureOf } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";

/** A copy of a template of the page: its one element. */
export function copyOf(template) {
  return document.querySelector(`#${template}`).content.firstElementChild.cloneNode(true);
}

/** An element of HTML with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** An element of SVG with attributes and children. */
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** "1 photo", "2,000 photos" */
export function plural(count, noun, nouns = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : nouns}`;
}

/** Say a line to those who hear the page. */
export function announce(line) {
  document.querySelector("#live").textContent = line;
}

/** Show what went wrong on a screen, with a button to try again; an empty line takes it away. */
export function showProblem(screen, error, again) {
  if (error?.name === "AbortError") return;
  const line = screen.querySelector(".problem");
  line.replaceChildren(error?.message ?? "");
  if (error && again) line.append(" ", button("Try again", again));
  if (error && !("status" in error)) console.error(error); // a fault of the page itself
}

export function button(text, pressed, className = "") {
  const made = element("button", { type: "button", textContent: text, className });
  made.addEventListener("click", pressed);
  return made;
}

/** A photo, and over it an SVG in the photo's pixels. Its place is held while it loads. */
export function pictureParts(photo, width, height, size, alt, ...drawn) {
  const image = element("img", { alt, width, height, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () =>
    image.replaceWith(
      element("span", { className: "gone" }, "this photo is gone, or was changed since it was indexed"),
    ),
  );
  image.src = pictureOf(photo, size);
  return [image, drawing(width, height, ...drawn)];
}

export function drawing(width, height, ...drawn) {
  const attributes = { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" };
  return shape("svg", { ...attributes, preserveAspectRatio: "none" }, ...drawn);
}

/** A box with a dark edge, so that it can be seen on any photo. kind: its class in the style sheet. */
export function outline([x0, y0, x1, y1], kind) {
  const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  return shape("g", {}, shape("rect", { ...place, class: "halo" }), shape("rect", { ...place, class: kind }));
}

export function pointMark([x, y], radius) {
  const place = { cx: x, cy: y, r: radius };
  const rings = ["halo", "asked"].map((kind) => shape("circle", { ...place, class: kind }));
  return shape("g", {}, ...rings);
}

/** A text that can be copied. */
export function copyable(text, what) {
  const copy = button("Copy", () => copyText(text, copy));
  copy.setAttribute("aria-label", `Copy ${what}`);
  return [element("code", {}, text), " ", copy];
}

export async function copyText(text, pressed) {
  const before = pressed.textContent;
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
    announce("copied");
  } catch {
    // Browsers allow it only on this machine's own pages, or over HTTPS.
    pressed.textContent = "The browser forbids it";
  }
  setTimeout(() => (pressed.textContent = before), 2000);
}

/** The command that does the same as a search. */
export function showCommand(place, command) {
  place.hidden = false;
  place.replaceChildren(element("h2", {}, "The same in a terminal"));
  if (command) place.append(element("p", {}, ...copyable(command, "the command")));
  else place.append(element("p", { className: "soft" }, "A command cannot add or remove areas; draw a mask for it."));
}

let forms = 0;
/** Choose photos by folder and date. change(filter) is told {folder, since, until}. */
export function filterForm(place, collection, change) {
  place.replaceChildren();
  const folder = element("select", { name: "folder" });
  folder.append(element("option", { value: "" }, "all folders"));
  for (const { path, name, n_photos } of collection.folders) {
    const isOnly = collection.folders.filter((other) => other.name === name).length === 1;
    const label = `${isOnly ? name : path} (${n_photos.toLocaleString("en")})`;
    folder.append(element("option", { value: path }, label));
  }
  const since = element("input", { type: "date", name: "since" });
  const until = element("input", { type: "date", name: "until" });
  const fields = { folder, since, until };
  const labels = { folder: "in", since: "taken since", until: "until" };
  for (const [name, field] of Object.entries(fields)) {
    field.id = `${name}-${++forms}`;
    field.addEventListener("change", () =>
      change({ folder: folder.value, since: since.value, until: until.value }),
    );
    place.append(element("label", { className: "field", htmlFor: field.id }, labels[name], field));
  }
  return (filter) => {
    for (const [name, field] of Object.entries(fields)) field.value = filter[name] ?? "";
  };
}
