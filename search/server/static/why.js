// Why a photo is a match: lines between places of the object and what is most like them in the photo.

import { pictureOf } from "./api.js";
import { plural, shape } from "./elements.js";

const HEIGHT = 400; // of both pictures, in units of the drawing
const GAP = 24;

/** Show the pairs of a match in a dialog. pairs: as the API gives them. */
export async function showWhy(dialog, match, { references }, pairs) {
  const reference = references[match.reference];
  const left = { photo: reference.photo, ...sides(reference), x: 0 };
  const right = { photo: { id: match.id }, ...sides(match), x: left.width + GAP };
  const lines = pairs.map((pair, at) => line(pair, left, right, Math.round((360 * at) / pairs.length)));
  const drawn = shape(
    "svg",
    {
      viewBox: `0 0 ${right.x + right.width} ${HEIGHT}`,
      role: "img",
      "aria-label": `${plural(pairs.length, "line")} between the object on the left and this photo on the right`,
    },
    ...[left, right].filter(({ photo }) => photo).map(({ photo, x, width }) =>
      shape("image", { href: pictureOf(photo, 1280), x, width, height: HEIGHT, preserveAspectRatio: "none" }),
    ),
    ...lines,
  );
  dialog.querySelector("p").textContent = sentence(match, pairs.length);
  dialog.querySelector(".lines").replaceChildren(drawn);
  dialog.showModal();
}

function sides({ width, height }) {
  return { width: (width * HEIGHT) / height, scale: HEIGHT / height };
}

function line({ query, match, similarity }, left, right, hue) {
  const [ax, ay] = query.map((value) => value * left.scale);
  const [bx, by] = match.map((value) => value * right.scale);
  const [from, to] = [left.x + ax, right.x + bx];
  const middle = (from + to) / 2;
  // Drawn twice: a dark line below a bright one can be seen on any photo.
  const curve = `M${from} ${ay}C${middle} ${ay} ${middle} ${by} ${to} ${by}`;
  return shape(
    "g",
    { class: "pair" },
    shape("title", {}, `similarity ${similarity.toFixed(2)}`),
    shape("path", { d: curve, class: "halo" }),
    shape("path", { d: curve, stroke: `hsl(${hue} 95% 62%)` }),
    ...[[from, ay], [to, by]].map(([cx, cy]) => shape("circle", { cx, cy, r: 4, fill: `hsl(${hue} 95% 62%)` })),
  );
}

function sentence({ word, score, probability, confidence }, count) {
  const [name, value] = probability === null ? ["confidence", confidence] : ["probability", probability];
  const numbers = [`similarity ${score.toFixed(2)}`];
  if (value !== null) numbers.push(`${name} ${value.toFixed(2)}`);
  const places = count ? `${plural(count, "place")} of the object, and what is most like each in this photo` : "No places pair up";
  return `${word ? `${word[0].toUpperCase()}${word.slice(1)}. ` : ""}${places} (${numbers.join(", ")}).`;
}
