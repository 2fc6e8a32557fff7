// The address holds all that a screen shows, so that reload, back and a link that is sent work:
//   #album?name=Rex
//   #objects?object=3
//   #matches?photo=12&box=10,20,300,400&also=15@5,5,90,80&folder=/home/me/Pictures
//
// A place is {screen, search, size, shown, object}. search: as the API takes it, or null on the home screen and
// that of recurring objects.
// size: [width, height] of an upload, which the server does not tell again. shown: the id of the
// photo on the photo screen. object: the number of the recurring object that is shown, or null for all.

const AREAS = ["add", "remove"];
const FILTERS = ["folder", "since", "until"];

/** The place that a fragment names; what cannot be read is left out. */
export function readPlace(fragment) {
  const [screen, rest = ""] = fragment.replace(/^#/, "").split(/\?(.*)/s);
  const given = new URLSearchParams(rest);
  if (screen === "objects") return { screen, search: null, object: wholeNumber(given.get("object")) };
  const photo = photoOf(given);
  // A name has no photo to mark, and only a name has an album.
  const fits = screen === "album" ? photo?.name : screen !== "mark" || !photo?.name;
  if (!photo || !["mark", "matches", "photo", "album"].includes(screen) || !fits) {
    return { screen: "home", search: null };
  }
  const search = { object: { photo } };
  for (const [name, count] of [["box", 4], ["point", 2]]) {
    const numbers = numbersOf(given.get(name), count);
    if (numbers) search.object[name] = numbers;
  }
  if (given.get("class")) search.object.class = given.get("class");
  for (const name of AREAS) {
    const areas = given.getAll(name).map((text) => numbersOf(text, 4)).filter(Boolean);
    if (areas.length) search.object[name] = areas;
  }
  for (const name of ["also", "not"]) {
    search[name] = given.getAll(name).map(otherOf).filter(Boolean);
  }
  for (const name of FILTERS) if (given.get(name)) search[name] = given.get(name);
  search.top = wholeNumber(given.get("top")) ?? 40;
  return {
    screen,
    search,
    size: numbersOf(given.get("size"), 2),
    shown: wholeNumber(given.get("shown")),
  };
}

/** The fragment of a place. */
export function writePlace({ screen, search, size, shown, object: number }) {
  if (screen === "home") return "#";
  if (screen === "objects") return number ? `#objects?object=${number}` : "#objects";
  const { object } = search;
  const given = new URLSearchParams();
  const [[kind, name]] = Object.entries(object.photo);
  given.append(kind === "id" ? "photo" : kind, name);
  if (size) given.append("size", size);
  if (shown != null) given.append("shown", shown);
  if (object.class) given.append("class", object.class);
  for (const region of ["box", "point"]) if (object[region]) given.append(region, object[region]);
  for (const area of AREAS) for (const box of object[area] ?? []) given.append(area, box);
  for (const list of ["also", "not"]) {
    for (const { photo, box } of search[list]) given.append(list, `${photo.id}@${box}`);
  }
  for (const filter of FILTERS) if (search[filter]) given.append(filter, search[filter]);
  if (search.top !== 40) given.append("top", search.top);
  // These three need no escape in a fragment, and people read it.
  return `#${screen}?${given}`.replaceAll("%2C", ",").replaceAll("%40", "@").replaceAll("%2F", "/");
}

/** A search for one object and nothing else. */
export function newSearch(object) {
  return { object, also: [], not: [], top: 40 };
}

function photoOf(given) {
  for (const kind of ["upload", "name"]) if (given.get(kind)) return { [kind]: given.get(kind) };
  const id = wholeNumber(given.get("photo"));
  return id === null ? null : { id };
}

function otherOf(text) {
  const [photo, region = ""] = text.split("@");
  const id = wholeNumber(photo);
  const box = numbersOf(region, 4);
  return id === null || box === null ? null : { photo: { id }, box };
}

function numbersOf(text, count) {
  const numbers = (text ?? "").split(",").map(Number);
  return numbers.length === count && numbers.every(Number.isFinite) ? numbers : null;
}

function wholeNumber(text) {
  return /^\d{1,15}$/.test(text ?? "") ? Number(text) : null;
}
