// The photo screen: one photo as large as it fits, with every place where the object was found.

import { newSearch, writePlace } from "./address.js";
import { answerTo, ask } from "./api.js";
import { copyable, copyOf, element, outline, pictureParts, plural, showCommand, showProblem } from "./elements.js";

const STATES = {
  changed: "This photo was changed since it was indexed; run `waldo index` again.",
  gone: "This photo is gone since it was indexed.",
};

export function photoScreen() {
  const screen = copyOf("photo-screen");
  const back = screen.querySelector(".back");
  let newest = 0; // of the places that were to be shown: answers for others come too late

  async function update(place) {
    const number = ++newest;
    back.href = writePlace({ ...place, screen: "matches", shown: null });
    showProblem(screen, null);
    try {
      const photo = await ask(`photos/${place.shown}`);
      if (number !== newest) return;
      describe(screen, photo);
      offerFeatures(screen.querySelector(".seen"), photo, place.search.object.class);
      const { matches, command } = await answerTo(place.search);
      if (number !== newest) return;
      const match = matches.find(({ id }) => id === photo.id);
      if (match && photo.state === "unchanged") showPlaces(screen, match);
      showCommand(screen.querySelector(".command"), command);
    } catch (error) {
      if (number === newest) showProblem(screen, error, () => update(place));
    }
  }

  function key(event) {
    if (event.key === "Escape") back.click();
  }

  return { element: screen, update, key };
}

function describe(screen, photo) {
  const part = (name) => screen.querySelector(name);
  part("h1").textContent = document.title = photo.name;
  part(".whole").replaceChildren(
    ...pictureParts({ id: photo.id }, photo.width, photo.height, 2560, photo.name),
  );
  part(".whole").style.setProperty("--ratio", photo.width / photo.height);
  part(".told").textContent = STATES[photo.state] ?? "";
  part(".path").replaceChildren(...copyable(photo.path, "the path"));
  part(".taken").textContent = photo.taken ?? "unknown";
  part(".size").textContent = `${photo.width} × ${photo.height} pixels`;
  for (const row of screen.querySelectorAll("dl .copies")) row.hidden = !photo.copies.length;
  const rows = photo.copies.map(({ path }) => element("li", {}, ...copyable(path, "the path")));
  part(".copies ul").replaceChildren(...rows);
  part(".other").href = writePlace({ screen: "mark", search: newSearch({ photo: { id: photo.id } }) });
}

/** The pictures cost the model's time, so they are asked for when somebody opens the details. */
function offerFeatures(details, photo, className) {
  const pictures = [featurePicture(photo, "appearance map")];
  if (className) pictures.push(featurePicture(photo, `class map of ${className}`, className));
  details.hidden = photo.state !== "unchanged";
  details.querySelector(".drawn").replaceChildren(...pictures);
}

function featurePicture({ id, width, height }, title, className) {
  const image = element("img", { alt: title, width, height, loading: "lazy" });
  const asked = className ? `?class=${encodeURIComponent(className)}` : "";
  image.src = `/api/v1/photos/${id}/features${asked}`;
  return element("figure", {}, image, element("figcaption", { className: "soft" }, title));
}

function showPlaces(screen, { id, boxes, box, word }) {
  const places = `The object is marked in ${plural(boxes.length, "place")}`;
  screen.querySelector(".told").textContent = word ? `${places}: ${word}.` : `${places}.`;
  screen.querySelector(".whole svg").replaceChildren(...boxes.map((one) => outline(one, "found")));
  const instead = screen.querySelector(".instead");
  const search = newSearch({ photo: { id }, box: box.map(Math.round) });
  instead.href = writePlace({ screen: "matches", search });
  instead.hidden = false;
}
