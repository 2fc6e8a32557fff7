// The photos that people selected among the matches: their paths can be copied and saved.

import { copyText, element, plural } from "./elements.js";

/** The bar of the selected photos; follow(checkbox, match) makes it know of one. */
export function pickedPhotos(bar) {
  const paths = new Map(); // by the photos' ids, so that they outlast a search
  const copy = bar.querySelector(".copy");

  function show() {
    bar.hidden = paths.size === 0;
    bar.querySelector("span").textContent = `${plural(paths.size, "photo")} selected`;
  }

  function follow(checkbox, { id, path }) {
    checkbox.checked = paths.has(id);
    checkbox.addEventListener("change", () => {
      if (checkbox.checked) paths.set(id, path);
      else paths.delete(id);
      show();
    });
  }

  const lines = () => `${[...paths.values()].join("\n")}\n`;
  copy.addEventListener("click", () => copyText(lines(), copy));
  bar.querySelector(".text").addEventListener("click", () => save("waldo.txt", lines()));
  bar.querySelector(".json").addEventListener("click", () => save("waldo.json", JSON.stringify([...paths.values()])));
  bar.querySelector(".none").addEventListener("click", () => {
    paths.clear();
    for (const box of document.querySelectorAll(".card input")) box.checked = false;
    show();
  });
  return { follow };
}

function save(name, text) {
  const href = URL.createObjectURL(new Blob([text]));
  element("a", { href, download: name }).click();
  URL.revokeObjectURL(href);
}
