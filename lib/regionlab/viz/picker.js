// The region picker in the browser. The kernel holds the state (see picker.py); here pointer and
// keys become objects in pixels of the image, and whatever the state is gets drawn.

const WANDER = { mouse: 4, pen: 6, touch: 10 }; // CSS pixels that a click may move
const LONG_PRESS = 500; // milliseconds, the right click of a finger
const HUNDREDTH = 100;

const HELP = [
  ["drag", "box around the object"],
  ["click, tap", "point inside it"],
  ["right-click, Shift+click, long press", "point outside it"],
  ["+ and −", "what a plain click means"],
  ["words", "alone: find it by words; beside marks: its name"],
  ["N, 1 … 9", "new object, choose an object"],
  ["Ctrl+Z", "undo"],
  ["Delete", "remove the object"],
  ["Escape", "give up a drag"],
];

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function makeButton(label, title, onclick) {
  return make("button", { type: "button", title, onclick, "aria-label": title }, label);
}

function emptyObject() {
  return { box: null, points: [], labels: [], text: "" };
}

function isEmpty(object) {
  return !object.box && !object.points.length && !object.text;
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

class Picker {
  constructor(model, el) {
    this.model = model;
    this.sign = 1; // what a plain click means
    this.drag = null;
    this.history = [];
    this.urls = [];
    this.build(el);
    this.listen();
    this.showPicture();
    this.showMasks();
    this.showState();
    this.showMessage();
  }

  get objects() {
    const objects = this.model.get("objects");
    return objects.length ? objects : [emptyObject()];
  }

  get active() {
    return clamp(this.model.get("active"), 0, this.objects.length - 1);
  }

  color(number) {
    const colors = this.model.get("colors");
    return colors[number % colors.length];
  }

  // --- what stands where ---------------------------------------------------------------

  build(el) {
    this.chips = make("span", { className: "chips", role: "group", "aria-label": "objects" });
    this.plus = makeButton("+", "a click is inside the object (+)", () => this.setSign(1));
    this.minus = makeButton("−", "a click is outside the object (-)", () => this.setSign(0));
    this.words = make("input", { type: "text", className: "words", spellcheck: false });
    this.help = this.buildHelp();
    this.bar = make(
      "div",
      { className: "bar" },
      this.chips,
      makeButton("New", "new object (N)", () => this.addObject()),
      make("span", { className: "pair", role: "group", "aria-label": "click" }, this.plus, this.minus),
      this.words,
      makeButton("Undo", "undo (Ctrl+Z)", () => this.undo()),
      makeButton("Delete", "remove the object (Delete)", () => this.removeObject()),
      makeButton("?", "help (?)", () => this.toggleHelp()),
    );
    this.image = make("img", { draggable: false, alt: "the picture to pick from" });
    this.maskLayer = make("div", { className: "layer" });
    this.markLayer = make("div", { className: "layer" });
    this.stage = make("div", { className: "stage" }, this.image, this.maskLayer, this.markLayer);
    this.message = make("div", { className: "message", role: "status" });
    this.root = make(
      "div",
      {
        className: "regionlab-picker",
        tabIndex: 0,
        role: "group",
        "aria-label": "region picker; press ? for help",
        "data-lm-suppress-shortcuts": "true",
      },
      this.bar,
      this.help,
      this.stage,
      this.message,
    );
    this.setSign(1);
    el.append(this.root);
  }

  buildHelp() {
    const rows = HELP.map(([keys, what]) => [make("dt", {}, keys), make("dd", {}, what)]);
    return make("dl", { className: "help", hidden: true }, ...rows.flat());
  }

  listen() {
    const { stage, root, words } = this;
    stage.addEventListener("pointerdown", (event) => this.startDrag(event));
    stage.addEventListener("pointermove", (event) => this.continueDrag(event));
    stage.addEventListener("pointerup", (event) => this.endDrag(event));
    stage.addEventListener("pointercancel", () => this.cancelDrag());
    stage.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
    });
    root.addEventListener("keydown", (event) => this.pressKey(event));
    words.addEventListener("change", () => this.setWords(words.value));

    this.handlers = {
      "change:picture change:width change:height": () => this.showPicture(),
      "change:masks": () => this.showMasks(),
      "change:objects": () => this.remember(),
      "change:objects change:active change:colors": () => this.showState(),
      "change:error change:status": () => this.showMessage(),
    };
    this.known = this.snapshot();
    for (const [names, handler] of Object.entries(this.handlers)) this.model.on(names, handler);
  }

  dispose() {
    this.cancelDrag();
    for (const [names, handler] of Object.entries(this.handlers)) this.model.off(names, handler);
    URL.revokeObjectURL(this.image.src);
    this.urls.forEach((url) => URL.revokeObjectURL(url));
  }

  // --- pointer ---------------------------------------------------------------------------

  toImage(event) {
    const shown = this.image.getBoundingClientRect();
    const width = this.model.get("width");
    const height = this.model.get("height");
    const x = ((event.clientX - shown.left) / shown.width) * width;
    const y = ((event.clientY - shown.top) / shown.height) * height;
    return [clamp(x, 0, width), clamp(y, 0, height)].map((v) => Math.round(v * HUNDREDTH) / HUNDREDTH);
  }

  startDrag(event) {
    if (this.drag) return this.cancelDrag(); // a second finger
    if (event.button !== 0 && event.button !== 2) return;
    event.preventDefault();
    this.root.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const modified = event.shiftKey || event.ctrlKey || event.altKey || event.metaKey;
    this.drag = {
      id: event.pointerId,
      from: this.toImage(event),
      client: [event.clientX, event.clientY],
      label: event.button === 2 || modified ? 0 : this.sign,
      draws: event.button === 0,
      moved: false,
    };
    if (event.pointerType === "touch") {
      this.drag.timer = setTimeout(() => this.longPress(), LONG_PRESS);
    }
  }

  continueDrag(event) {
    const drag = this.drag;
    if (!drag || event.pointerId !== drag.id) return;
    const [x, y] = drag.client;
    const way = Math.max(Math.abs(event.clientX - x), Math.abs(event.clientY - y));
    if (!drag.moved && way < (WANDER[event.pointerType] ?? WANDER.mouse)) return;
    drag.moved = true;
    clearTimeout(drag.timer);
    drag.to = this.toImage(event);
    this.showState();
  }

  endDrag(event) {
    if (!this.drag || event.pointerId !== this.drag.id) return;
    this.continueDrag(event);
    const drag = this.drag;
    const box = this.dragBox();
    this.cancelDrag();
    if (box) this.edit((object) => (object.box = box));
    else if (!drag.moved) this.addPoint(drag.from, drag.label);
  }

  longPress() {
    const { from } = this.drag;
    this.cancelDrag();
    this.addPoint(from, 0);
  }

  cancelDrag() {
    if (!this.drag) return;
    const { id, timer } = this.drag;
    clearTimeout(timer);
    this.drag = null;
    if (this.stage.hasPointerCapture(id)) this.stage.releasePointerCapture(id);
    this.showState();
  }

  // The box being drawn; null while there is none, or it has no area.
  dragBox() {
    if (!this.drag?.moved || !this.drag.draws) return null;
    const { from, to } = this.drag;
    const [x0, x1] = [from[0], to[0]].sort((a, b) => a - b);
    const [y0, y1] = [from[1], to[1]].sort((a, b) => a - b);
    return x0 < x1 && y0 < y1 ? [x0, y0, x1, y1] : null;
  }

  // --- keys --------------------------------------------------------------------------------

  pressKey(event) {
    event.stopPropagation();
    if (event.target === this.words) {
      // Leaving the field is what reports its change.
      if (event.key === "Enter" || event.key === "Escape") this.root.focus({ preventScroll: true });
      return;
    }
    const action = this.actionOf(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  actionOf(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) return key === "z" ? () => this.undo() : null;
    if (event.altKey) return null;
    if (key >= "1" && key <= "9") return () => this.choose(Number(key) - 1);
    return {
      n: () => this.addObject(),
      delete: () => this.removeObject(),
      backspace: () => this.removeObject(),
      escape: () => (this.drag ? this.cancelDrag() : this.toggleHelp(false)),
      "+": () => this.setSign(1),
      "-": () => this.setSign(0),
      "?": () => this.toggleHelp(),
    }[key];
  }

  // --- changes of the state ----------------------------------------------------------------

  edit(change) {
    const objects = structuredClone(this.objects);
    change(objects[this.active]);
    this.commit(objects, this.active);
  }

  commit(objects, active) {
    this.model.set({ objects, active });
    this.model.save_changes();
  }

  addPoint([x, y], label) {
    // A point names a pixel, and the last one begins before the edge.
    const last = 1 / HUNDREDTH;
    const point = [
      Math.min(x, this.model.get("width") - last),
      Math.min(y, this.model.get("height") - last),
    ];
    this.edit((object) => {
      object.points.push(point);
      object.labels.push(label);
    });
  }

  setWords(words) {
    const text = words.trim();
    if (text !== this.objects[this.active].text) this.edit((object) => (object.text = text));
  }

  choose(number) {
    if (number >= this.objects.length) return;
    this.model.set("active", number);
    this.model.save_changes();
  }

  addObject() {
    const spare = this.objects.findIndex(isEmpty);
    if (spare >= 0) return this.choose(spare);
    this.commit([...this.objects, emptyObject()], this.objects.length);
  }

  removeObject() {
    const objects = this.objects.filter((_, number) => number !== this.active);
    if (!objects.length) objects.push(emptyObject());
    this.commit(objects, Math.min(this.active, objects.length - 1));
  }

  snapshot() {
    return { objects: this.objects, active: this.active };
  }

  remember() {
    if (!this.undoing) this.history.push(this.known);
    this.known = this.snapshot();
  }

  undo() {
    const last = this.history.pop();
    if (!last) return;
    this.undoing = true;
    this.commit(last.objects, last.active);
    this.undoing = false;
  }

  setSign(sign) {
    this.sign = sign;
    this.plus.setAttribute("aria-pressed", sign === 1);
    this.minus.setAttribute("aria-pressed", sign === 0);
  }

  toggleHelp(shown = this.help.hidden) {
    this.help.hidden = !shown;
  }

  // --- drawing -----------------------------------------------------------------------------

  showPicture() {
    URL.revokeObjectURL(this.image.src);
    this.image.src = URL.createObjectURL(new Blob([this.model.get("picture")]));
    this.stage.style.setProperty("--width", this.model.get("width"));
    this.stage.style.setProperty("--height", this.model.get("height"));
    this.showState();
  }

  async showMasks() {
    const masks = this.model.get("masks");
    const urls = masks.filter(Boolean).map((png) => URL.createObjectURL(new Blob([png])));
    const images = urls.map((src) => make("img", { src, alt: "", draggable: false }));
    const old = this.urls;
    this.urls = urls;
    // Swapped once they can be drawn, so that nothing flickers.
    await Promise.allSettled(images.map((image) => image.decode()));
    if (this.urls === urls) this.maskLayer.replaceChildren(...images);
    old.forEach((url) => URL.revokeObjectURL(url));
  }

  showState() {
    const { objects, active } = this;
    this.chips.replaceChildren(...objects.map((object, number) => this.drawChip(object, number)));
    this.markLayer.replaceChildren(...objects.flatMap((object, i) => this.drawMarks(object, i)));
    const name = `words for object ${active + 1}`;
    this.words.setAttribute("aria-label", name);
    this.words.placeholder = name;
    if (this.words !== document.activeElement) this.words.value = objects[active].text;
    this.root.style.setProperty("--active", this.color(active));
  }

  drawChip(object, number) {
    const chip = makeButton(String(number + 1), `object ${number + 1}`, () => this.choose(number));
    chip.style.setProperty("--color", this.color(number));
    chip.setAttribute("aria-pressed", number === this.active);
    if (object.text) chip.title = object.text;
    return chip;
  }

  drawMarks(object, number) {
    const isActive = number === this.active;
    const box = (isActive && this.dragBox()) || object.box;
    const marks = object.points.map((point, i) => this.drawPoint(point, object.labels[i]));
    if (box) marks.unshift(this.drawBox(box));
    for (const mark of marks) {
      mark.style.setProperty("--color", this.color(number));
      mark.classList.toggle("active", isActive);
    }
    return marks;
  }

  drawBox([x0, y0, x1, y1]) {
    const mark = make("div", { className: "box" });
    const [left, top, right, bottom] = [...this.toPercent(x0, y0), ...this.toPercent(x1, y1)];
    Object.assign(mark.style, {
      left: `${left}%`,
      top: `${top}%`,
      width: `${right - left}%`,
      height: `${bottom - top}%`,
    });
    return mark;
  }

  drawPoint([x, y], label) {
    const mark = make("div", { className: label ? "point inside" : "point" });
    const [left, top] = this.toPercent(x, y);
    Object.assign(mark.style, { left: `${left}%`, top: `${top}%` });
    return mark;
  }

  toPercent(x, y) {
    return [(100 * x) / this.model.get("width"), (100 * y) / this.model.get("height")];
  }

  showMessage() {
    const error = this.model.get("error");
    this.message.textContent = error || this.model.get("status");
    this.message.classList.toggle("error", Boolean(error));
  }
}

export default {
  render({ model, el }) {
    const picker = new Picker(model, el);
    return () => picker.dispose();
  },
};
