// The matches screen: the photos that show the object, the surest first. Yes and no search again.

import { answerTo, ask, keptAnswer, Problem, theCollection } from "./api.js";
import { writePlace } from "./address.js";
import {
  announce, copyable, copyOf, element, filterForm, outline, pictureParts, plural, showCommand, showProblem,
} from "./elements.js";
import { keepForm } from "./names.js";
import { pickedPhotos } from "./picked.js";
import { showViews } from "./views.js";
import { showWhy } from "./why.js";

const CHANCE = "maybe chance";
// The server's words for how sure a match is, in the order that they are shown, and their headings.
// It has none for the photo that is searched for, and where too few photos were compared.
const HEADINGS = { "": "", sure: "Sure", likely: "Likely", possible: "Possible" };
const MOST = 200; // matches that the server gives

export function matchesScreen(go) {
  const screen = copyOf("matches-screen");
  const found = screen.querySelector(".found");
  const told = screen.querySelector(".told");
  const heat = screen.querySelector(".heat");
  const more = screen.querySelector(".more");
  const undo = screen.querySelector(".undo");
  const picked = pickedPhotos(screen.querySelector(".picked"));
  let place = null;
  let answer = null;
  let newest = 0; // of the searches that were asked for: answers of others come too late
  let offered = null; // the collection whose folders can be chosen
  let setFilter = () => {};
  let mayRenew = true; // whether a heatmap that fails has the search asked again

  function update(next, canUndo) {
    const isSame = place && writePlace(place) === writePlace(next);
    place = next;
    undo.disabled = !canUndo;
    offerFilters();
    if (isSame && answer && answer === keptAnswer(place.search)) return;
    if (!isSame) screen.querySelector(".keep output").textContent = "";
    mayRenew = true;
    search();
  }

  async function offerFilters() {
    const collection = await theCollection().catch(() => null); // the search will say what is wrong
    if (collection && collection !== offered) {
      offered = collection;
      setFilter = filterForm(screen.querySelector(".filters"), collection, ({ folder, since, until }) =>
        change({ folder: folder || undefined, since: since || undefined, until: until || undefined }),
      );
    }
    setFilter(place.search);
  }

  async function search(again = false) {
    const number = ++newest;
    const { search: asked } = place;
    screen.setAttribute("aria-busy", "true");
    told.textContent = answer ? "Searching again …" : "Searching …";
    showProblem(screen, null);
    try {
      const received = await answerTo(asked, again);
      if (number !== newest) return;
      answer = received;
      show();
    } catch (error) {
      if (number !== newest) return;
      told.textContent = "";
      showProblem(screen, error, () => search());
      if (error.status >= 400 && error.status < 500) clear();
      if (error.status === 404) {
        screen.querySelector(".problem").append(" ", element("a", { href: "#" }, "Choose another photo"));
      }
    } finally {
      if (number === newest) screen.removeAttribute("aria-busy");
    }
  }

  /** What was found for another search would be taken for an answer to this one. */
  function clear() {
    answer = null;
    found.replaceChildren();
    more.hidden = true;
  }

  function show() {
    const focused = focusOf(document.activeElement);
    told.textContent = summary(answer, place.search);
    showViews(screen.querySelector(".views"), place, answer, change);
    found.replaceChildren(...groups(answer, card));
    const isLong = answer.matches.length >= place.search.top && answer.matches.at(-1).word !== CHANCE;
    more.hidden = !isLong || place.search.top >= MOST;
    showCommand(screen.querySelector(".command"), answer.command);
    if (heat.getAttribute("aria-pressed") === "true") layHeat();
    focusAgain(screen, focused);
  }

  /** Search for something else at once. */
  function change(search) {
    go({ ...place, search: { ...place.search, ...search } }, { undo: true });
  }

  function card(match) {
    const made = copyOf("card");
    const name = nameOf(match.path);
    made.dataset.id = match.id;
    made.dataset.rank = match.rank;
    const link = made.querySelector(".picture");
    link.href = writePlace({ ...place, screen: "photo", shown: match.id });
    link.style.setProperty("--ratio", match.width / match.height);
    const boxes = match.changed ? [] : match.boxes.map((box) => outline(box, "found"));
    link.append(...pictureParts({ id: match.id }, match.width, match.height, 640, name, ...boxes));
    made.querySelector(".name").textContent = name;
    made.querySelector(".name").title = match.path;
    picked.follow(made.querySelector("input"), match);
    const isYes = place.search.also.some(({ photo }) => photo.id === match.id);
    const isItself = match.is_query && !isYes;
    showWord(made.querySelector(".word"), isYes ? "your yes" : isItself ? "the photo itself" : match.word);
    made.querySelector(".about").textContent = aboutMatch(match);
    showCopies(made.querySelector(".copies"), match.copies);
    if (isItself) made.querySelector(".actions").remove();
    else addActions(made, match, name);
    return made;
  }

  function addActions(made, match, name) {
    const actions = made.querySelector(".actions");
    const says = { yes: `Yes, ${name} shows it`, no: `No, ${name} does not show it` };
    for (const [word, list] of [["yes", "also"], ["no", "not"]]) {
      const button = actions.querySelector(`.${word}`);
      const said = place.search[list].some((other) => other.photo.id === match.id);
      button.setAttribute("aria-label", says[word]);
      button.setAttribute("aria-pressed", said);
      button.addEventListener("click", () => judge(match, list, said));
    }
    const why = actions.querySelector(".ask-why");
    why.setAttribute("aria-label", `Why? ${name}`);
    why.addEventListener("click", () => explain(match));
  }

  /** Yes and no exclude each other; pressed once more, the word is taken back. */
  function judge(match, list, said) {
    const others = (name) => place.search[name].filter(({ photo }) => photo.id !== match.id);
    const lists = { also: others("also"), not: others("not") };
    if (!said) lists[list].push({ photo: { id: match.id }, box: match.box.map(Math.round) });
    change(lists);
  }

  async function explain(match) {
    const dialog = screen.querySelector("dialog");
    try {
      await showWhy(dialog, match, answer, await pairsOf(match));
    } catch (error) {
      showProblem(screen, error);
    }
  }

  /** The server forgets old answers; then the same search is asked again, and has the same matches. */
  async function pairsOf(match) {
    const path = () => `searches/${answer.search}/matches/${match.rank}/pairs`;
    try {
      return (await ask(path())).pairs;
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404) throw error;
      answer = await answerTo(place.search, true);
      return (await ask(path())).pairs;
    }
  }

  function layHeat() {
    for (const made of found.querySelectorAll(".card")) {
      if (!made.querySelector(".layer")) made.querySelector("svg").before(heatLayer(made.dataset.rank));
    }
  }

  function heatLayer(rank) {
    const layer = element("img", { className: "layer", alt: "", loading: "lazy" });
    const { search: key } = answer;
    layer.addEventListener("error", () => {
      // As for the pairs; the first layer that fails has them all drawn anew. Once, for it may have
      // failed for another reason, which no search mends.
      if (answer?.search === key && mayRenew) {
        mayRenew = false;
        search(true);
      }
    }, { once: true });
    layer.src = `/api/v1/searches/${key}/matches/${rank}/heatmap`;
    return layer;
  }

  function toggleHeat() {
    const isOn = heat.getAttribute("aria-pressed") !== "true";
    heat.setAttribute("aria-pressed", isOn);
    mayRenew = true;
    if (isOn) layHeat();
    else for (const layer of found.querySelectorAll(".layer")) layer.remove();
    announce(isOn ? "heatmaps are shown" : "heatmaps are hidden");
  }

  function key(event) {
    const steps = { j: 1, k: -1 };
    if (event.key in steps) move(screen, steps[event.key]);
    if (event.key === "o") document.activeElement.closest(".card")?.querySelector("a").click();
    if (event.key === "h") toggleHeat();
  }

  keepForm(screen.querySelector(".keep"), (name) => {
    const { object, also, not } = place.search;
    return ask("names", { name, object, also, not });
  });
  heat.addEventListener("click", toggleHeat);
  undo.addEventListener("click", () => history.back());
  more.addEventListener("click", () => change({ top: MOST }));
  return { element: screen, update, key };
}

export function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

function summary({ matches, n_photos, timing, notes }, search) {
  const searched = `${plural(n_photos, "photo")} searched in ${timing.total.toFixed(1)} s`;
  const isFiltered = search.folder || search.since || search.until;
  const others = matches.filter((match) => !match.is_query);
  let outcome = ": no photo but this one.";
  if (!others.length && isFiltered) outcome = ": no other photo is in this folder and of these dates.";
  else if (others.length && others.every(({ word }) => word === CHANCE)) {
    outcome = ". None surely shows it: what is alike may be chance.";
  } else if (others.length) {
    const counts = ["sure", "likely", "possible"].map((word) => [word, others.filter((m) => m.word === word).length]);
    const said = counts.filter(([, count]) => count).map(([word, count]) => `${count} ${word}`);
    outcome = said.length ? `: ${said.join(", ")}.` : ".";
  }
  return [searched + outcome, ...notes].join(" ");
}

/** The matches under their headings; those that may be chance are folded away. */
function groups({ matches }, card) {
  const made = Object.entries(HEADINGS).flatMap(([word, heading]) => {
    const some = matches.filter((match) => match.word === word);
    if (!some.length) return [];
    const list = element("ol", { className: "cards" }, ...some.map(card));
    return heading ? [element("h2", {}, heading), list] : [list];
  });
  const chance = matches.filter((match) => match.word === CHANCE);
  if (chance.length) {
    const title = element("summary", {}, `${chance.length.toLocaleString("en")} more that may be chance`);
    const list = element("ol", { className: "cards" }, ...chance.map(card));
    made.push(element("details", { className: "chance" }, title, list));
  }
  return made;
}

function showWord(place, word) {
  place.textContent = word;
  place.hidden = !word;
  place.classList.add(...word.split(" ").filter(Boolean));
}

function aboutMatch({ boxes, changed }) {
  if (changed) return "changed since it was indexed";
  return boxes.length > 1 ? `in ${boxes.length} places` : "";
}

function showCopies(place, copies) {
  if (!copies.length) return;
  place.hidden = false;
  place.querySelector("summary").textContent = `and ${plural(copies.length, "copy", "copies")}`;
  const rows = copies.map(({ path }) => element("li", {}, ...copyable(path, "the path")));
  place.querySelector("ul").append(...rows);
}

/** Where the focus is, so that it can be found again in the matches of the next search. */
function focusOf(focused) {
  const id = focused?.closest(".card")?.dataset.id;
  return id ? { id, part: focused.className || "picture" } : null;
}

function focusAgain(screen, before) {
  if (!before) return;
  const card = screen.querySelector(`.card[data-id="${before.id}"]`);
  const folded = card?.closest("details:not([open]).chance");
  if (folded) folded.open = true;
  const target = card?.getElementsByClassName(before.part)[0] ?? screen.querySelector("h1");
  target.focus();
}

/** To the next or the previous match. */
export function move(screen, step) {
  const links = [...screen.querySelectorAll(".card .picture")].filter((link) => link.checkVisibility());
  const at = links.indexOf(document.activeElement.closest(".card")?.querySelector(".picture"));
  const next = links[at < 0 ? 0 : Math.min(Math.max(at + step, 0), links.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
