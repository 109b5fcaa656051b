// The picture and its parts: the notebooks' picker, with this page in place of a kernel.

import picker from "./picker.js";
import { post } from "./api.js";
import { byId, COLORS, colorOf, dot, make } from "./dom.js";

const WITHOUT = -0.5; // weight of a part that should not be there
const PAUSE = 150; // milliseconds without a change before masks are asked for

// What anywidget's model is to the picker.
class Model {
  constructor(state) {
    this.state = state;
    this.handlers = [];
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    const changes = typeof name === "object" ? name : { [name]: value };
    Object.assign(this.state, changes);
    const events = new Set(Object.keys(changes).map((key) => `change:${key}`));
    for (const { names, handler } of [...this.handlers]) {
      if (names.some((event) => events.has(event))) handler();
    }
  }

  save_changes() {}

  on(names, handler) {
    this.handlers.push({ names: names.split(" "), handler });
  }

  off(_names, handler) {
    this.handlers = this.handlers.filter((one) => one.handler !== handler);
  }
}

// The prompt of an object as the API has it; null while nothing is said.
function toPrompt(object, number) {
  const common = { weight: object.weight ?? 1, color: colorOf(number) };
  const text = object.text.trim();
  const marked = object.box || object.points.length;
  if (marked) common.label = text || `object ${number + 1}`;
  const sides = ["x0", "y0", "x1", "y1"];
  const box = object.box && Object.fromEntries(sides.map((side, i) => [side, object.box[i]]));
  if (object.points.length) {
    return { kind: "points", xy: object.points, labels: object.labels, box, ...common };
  }
  if (box) return { kind: "box", ...box, ...common };
  return text ? { kind: "text", words: text, ...common } : null;
}

function isUnclear(object) {
  return object.points.length > 0 && !object.box && !object.labels.includes(1);
}

function decode(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

export class QueryImage {
  constructor() {
    this.source = null; // {id, file, name}
    this.model = null;
    this.dispose = null;
    this.asking = null;
  }

  // Shows a picture; `objects` as the picker has them.
  show({ id = null, file, blob, width, height, objects }) {
    this.remove();
    this.source = { id, file };
    this.model = new Model({
      picture: blob,
      width,
      height,
      colors: COLORS,
      objects: objects ?? [{ box: null, points: [], labels: [], text: "" }],
      active: 0,
      masks: [],
      error: "",
      status: "",
    });
    this.dispose = picker.render({ model: this.model, el: byId("picker") });
    this.model.on("change:objects", () => this.follow());
    this.toggle(true);
    this.follow();
  }

  remove() {
    this.asking?.abort();
    clearTimeout(this.timer);
    this.dispose?.();
    byId("picker").replaceChildren();
    this.source = this.model = this.dispose = null;
    this.toggle(false);
    this.showParts();
  }

  toggle(shown) {
    byId("picker").hidden = !shown;
    byId("empty").hidden = shown;
    byId("drop-image").hidden = !shown;
  }

  get objects() {
    return this.model?.get("objects") ?? [];
  }

  // [object's number, prompt] of all that say something.
  get prompts() {
    const all = this.objects.map((object, number) => [number, toPrompt(object, number)]);
    return all.filter(([, prompt]) => prompt);
  }

  // Why the query cannot be asked, in words; empty if it can.
  get unclear() {
    const number = this.objects.findIndex(isUnclear);
    return number < 0 ? "" : `object ${number + 1}: only points outside: add one inside, or a box`;
  }

  follow() {
    this.showParts();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.preview(), PAUSE);
  }

  // Asks for the masks of what is drawn, and shows them.
  async preview() {
    const { model, source } = this;
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    const asked = this.prompts.filter(([number]) => !isUnclear(this.objects[number]));
    if (!asked.length) return model.set({ masks: [], status: "", error: this.unclear });
    model.set({ status: "finding the mask…", error: "" });
    try {
      const prompts = JSON.stringify(asked.map(([, prompt]) => prompt));
      const answer = await post("/mask", [["prompts", prompts]], source, signal);
      if (this.model === model) this.showMasks(asked, answer.masks);
    } catch (error) {
      if (error.name !== "AbortError") model.set({ masks: [], status: "", error: error.message });
    }
  }

  showMasks(asked, answers) {
    const masks = this.objects.map(() => null);
    const errors = [this.unclear].filter(Boolean);
    asked.forEach(([number], i) => {
      const { png, error } = answers[i];
      if (error) errors.push(`object ${number + 1}: ${error}`);
      else masks[number] = decode(png);
    });
    this.model.set({ masks, status: "", error: errors.join("; ") });
  }

  showParts() {
    byId("parts").replaceChildren(...this.prompts.map(([number, prompt]) => this.drawPart(number, prompt)));
  }

  drawPart(number, prompt) {
    const unwanted = prompt.weight < 0;
    const name = prompt.label ?? prompt.words;
    const pick = (weight) => () => this.setWeight(number, weight);
    const choice = (label, weight, pressed) =>
      make("button", { type: "button", onclick: pick(weight), "aria-pressed": pressed }, label);
    const choices = make(
      "span",
      { className: "pair", role: "group", "aria-label": `object ${number + 1}` },
      choice("with", 1, !unwanted),
      choice("without", WITHOUT, unwanted),
    );
    return make("li", { "data-number": number }, dot(number), make("span", { className: "name" }, name), choices);
  }

  setWeight(number, weight) {
    const objects = structuredClone(this.objects);
    objects[number].weight = weight;
    this.model.set("objects", objects);
    byId("parts").querySelector(`[data-number="${number}"] [aria-pressed="true"]`)?.focus();
  }
}
