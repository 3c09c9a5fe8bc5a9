/** The filters as a radio group of thumbnails. */

/**
 * @param {HTMLElement} group
 * @param {{name: string, title: string, domains: string, thumbnail: string}[]} filters
 * @param {(name: string) => void} onChosen
 * @returns {(current: string, pending: string) => void} marks the one that runs, and the one that
 *   is being opened ("": none).
 */
export function makeGallery(group, filters, onChosen) {
  const choices = new Map();
  group.replaceChildren(
    ...filters.map((filter) => {
      const [label, input] = choice(filter);
      choices.set(filter.name, [label, input]);
      input.addEventListener("change", () => onChosen(filter.name));
      return label;
    }),
  );

  let shown = "";
  return function mark(current, pending) {
    for (const [name, [label, input]] of choices) {
      input.checked = name === (pending || current);
      label.classList.toggle("pending", name === pending);
      label.classList.toggle("current", name === current);
    }
    if (current === shown) return;
    shown = current;
    const [label] = choices.get(current) ?? [];
    if (label) bringIntoView(group, label);
  };
}

function choice({ name, title, domains, thumbnail }) {
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "radio";
  input.name = "filter";
  input.value = name;
  input.id = `filter-${name}`;
  const picture = document.createElement("img");
  picture.src = thumbnail;
  picture.alt = "";
  picture.width = 192;
  picture.height = 108;
  picture.loading = "lazy";
  picture.draggable = false;
  const words = document.createElement("span");
  words.textContent = title;
  label.title = domains ? `${title}: ${domains}` : title;
  label.append(input, picture, words);
  return [label, input];
}

/** Scroll the strip of filters sideways only: the page must not jump. */
function bringIntoView(group, label) {
  const left = label.offsetLeft - group.offsetLeft;
  const right = left + label.offsetWidth;
  if (left < group.scrollLeft) group.scrollLeft = left - 12;
  else if (right > group.scrollLeft + group.clientWidth) {
    group.scrollLeft = right - group.clientWidth + 12;
  }
}
