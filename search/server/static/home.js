// The home screen: send a photo, or take one of the collection.

import { newSearch } from "./address.js";
import { ask, Problem, pictureOf, theCollection } from "./api.js";
import { announce, copyOf, element, filterForm, showProblem } from "./elements.js";
import { showNames } from "./names.js";

// The server takes no more; said here, before so much is sent.
const MOST_MIB = 64;

/** Send a photo to the server, and go on to mark the object in it. */
export async function receivePhoto(file, go, screen) {
  const title = screen.querySelector(".drop-title");
  const before = title?.textContent;
  try {
    showProblem(screen, null);
    announce("sending the photo");
    if (title) title.textContent = `Sending ${file.name} …`;
    if (file.size > MOST_MIB * 2 ** 20) {
      throw new Problem(`the photo has more than ${MOST_MIB} MiB; scale it down`, 413);
    }
    const { upload, id, width, height } = await ask("uploads", file);
    // A photo of the index has an address that lasts; that of an upload ends with the server.
    const isKnown = id !== null;
    const photo = isKnown ? { id } : { upload };
    go({ screen: "mark", search: newSearch({ photo }), size: isKnown ? null : [width, height] });
  } catch (error) {
    showProblem(screen, error);
  } finally {
    if (title) title.textContent = before;
  }
}

export function homeScreen(go) {
  const screen = copyOf("home-screen");
  const grid = screen.querySelector(".grid");
  const more = screen.querySelector(".more");
  const none = screen.querySelector(".none");
  const input = screen.querySelector("input[type=file]");
  let filter = {};
  let following = null;
  let asking = null;
  let lastFolder = null;
  let shown = null; // the collection that the grid is of

  async function load() {
    asking?.abort();
    asking = new AbortController();
    const given = Object.entries(filter).filter(([, value]) => value);
    const asked = new URLSearchParams([...given, ["limit", 60]]);
    if (following !== null) asked.append("after", following);
    try {
      const { photos, next } = await ask(`photos?${asked}`, undefined, asking.signal);
      showProblem(screen, null);
      photos.forEach(add);
      following = next;
      more.hidden = next === null;
      none.hidden = grid.childElementCount > 0;
    } catch (error) {
      showProblem(screen, error, error.status === 409 ? start : load);
    }
  }

  function start() {
    following = lastFolder = null;
    grid.replaceChildren();
    load();
  }

  function add(photo) {
    if (photo.folder !== lastFolder) {
      lastFolder = photo.folder;
      grid.append(element("h3", {}, photo.folder));
    }
    grid.append(thumbnail(photo));
  }

  /** Asks each time, for `waldo index` may have run meanwhile. */
  async function fill() {
    try {
      const collection = await theCollection(true);
      if (collection === shown) return;
      shown = collection;
      const setFilter = filterForm(screen.querySelector(".filters"), collection, (chosen) => {
        filter = chosen;
        start();
      });
      setFilter(filter);
      start();
    } catch (error) {
      showProblem(screen, error, fill);
    }
  }

  input.addEventListener("change", () => {
    if (input.files.length) receivePhoto(input.files[0], go, screen);
    input.value = ""; // the same file may be chosen again
  });
  more.addEventListener("click", load);
  // Whoever scrolls there need not press it.
  new IntersectionObserver(([entry]) => entry.isIntersecting && !more.hidden && load(), {
    rootMargin: "600px",
  }).observe(more);

  function update() {
    fill();
    showNames(screen).catch(() => {}); // what is wrong with the server, the collection says
  }

  return { element: screen, update };
}

function thumbnail(photo) {
  const alt = photo.taken ? `${photo.name}, ${photo.taken}` : photo.name;
  const image = element("img", { alt, title: alt, loading: "lazy", decoding: "async", width: 160, height: 160 });
  image.src = pictureOf(photo, 320);
  return element("a", { href: `#mark?photo=${photo.id}` }, image);
}
