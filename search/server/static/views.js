// What is looked for, in small pictures: the object, and the photos that people said yes and no to.

import { pictureOf, sizeOf } from "./api.js";
import { writePlace } from "./address.js";
import { button, element, shape } from "./elements.js";

/** change: told of {also, not} without a photo that is taken away. */
export function showViews(list, place, answer, change) {
  const { object, also, not } = place.search;
  const [first] = answer.references;
  const size = [first.width, first.height];
  const views = [
    object.photo.name
      ? view(object.photo.name, first.photo, first.box, size)
      : view("the object", object.photo, first.box, size, changeLink(place)),
  ];
  // A name may bring several photos; those that people said yes to come after them.
  const others = answer.references.slice(answer.references.length - also.length);
  also.forEach((one, at) => {
    const { width, height } = others[at];
    const without = button("×", () => change({ also: also.toSpliced(at, 1) }));
    without.setAttribute("aria-label", "Take this yes away");
    views.push(view("yes", one.photo, one.box, [width, height], without));
  });
  not.forEach((one, at) => {
    const without = button("×", () => change({ not: not.toSpliced(at, 1) }));
    without.setAttribute("aria-label", "Take this no away");
    views.push(view("no", one.photo, one.box, null, without));
  });
  list.replaceChildren(...views);
}

function changeLink(place) {
  const link = element("a", { href: writePlace({ ...place, screen: "mark" }) }, "Change");
  link.setAttribute("aria-label", "Change the object");
  return link;
}

/**
 * The part of a photo that a box holds. photo: null for one that is gone. size: [width, height] of
 * the photo; null: not known yet.
 */
function view(title, photo, box, size, ...more) {
  const [x0, y0, x1, y1] = box;
  const label = `${title}: a part of a photo`;
  const part = shape("svg", { viewBox: `${x0} ${y0} ${x1 - x0} ${y1 - y0}`, role: "img", "aria-label": label });
  const show = ([width, height]) => part.append(shape("image", { href: pictureOf(photo, 640), width, height }));
  if (size && photo) show(size);
  else if (photo) sizeOf(photo).then(show, () => {}); // a photo that is gone has no picture
  return element("li", { className: ["yes", "no"].includes(title) ? title : "" }, part, element("div", {}, element("span", {}, title), " ", ...more));
}
