// The rating sheet in the browser: a query, answers, and keys 1 to 5.

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

class Sheet {
  constructor(model, el) {
    this.model = model;
    this.urls = [];
    this.build(el);
    this.show = () => this.showPage();
    this.complain = () => (this.message.textContent = model.get("error"));
    model.on("change:position change:query change:answers change:given change:rater", this.show);
    model.on("change:error", this.complain);
    this.show();
    this.complain();
  }

  build(el) {
    this.progress = make("progress", { "aria-label": "progress" });
    this.count = make("span", { className: "count", role: "status" });
    this.page = make("div", { className: "page" });
    this.message = make("div", { className: "message", role: "alert" });
    this.root = make(
      "div",
      {
        className: "regionlab-rating",
        tabIndex: 0,
        role: "group",
        "aria-label": "rating sheet: 1 to 5 rate, S skips, Backspace goes back",
        "data-lm-suppress-shortcuts": "true",
      },
      make("div", { className: "bar" }, this.progress, this.count),
      this.page,
      this.message,
    );
    this.root.addEventListener("keydown", (event) => this.pressKey(event));
    el.append(this.root);
  }

  dispose() {
    const names = "change:position change:query change:answers change:given change:rater";
    this.model.off(names, this.show);
    this.model.off("change:error", this.complain);
    this.urls.forEach((url) => URL.revokeObjectURL(url));
  }

  // --- answers -------------------------------------------------------------------------------

  tell(event) {
    const count = (this.model.get("event").count ?? 0) + 1;
    const position = this.model.get("position");
    this.model.set("event", { position, ...event, count });
    this.model.save_changes();
    this.root.focus({ preventScroll: true });
  }

  pressKey(event) {
    event.stopPropagation();
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.actOf(event.key);
    if (!act || !this.model.get("position")) return;
    event.preventDefault();
    if (!event.repeat) this.tell(act); // a key held down is one answer
  }

  actOf(key) {
    if (key >= "1" && key <= "5" && key.length === 1) return { act: "rate", rating: Number(key) };
    return { s: { act: "skip" }, S: { act: "skip" }, Backspace: { act: "back" } }[key];
  }

  // --- drawing -------------------------------------------------------------------------------

  showPage() {
    const [position, total] = [this.model.get("position"), this.model.get("total")];
    const done = Math.min(Math.max(position - 1, 0), total);
    Object.assign(this.progress, { max: Math.max(total, 1), value: done });
    this.root.style.setProperty("--thumb", `${this.model.get("thumb")}px`);
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [];
    if (!position) return this.showStart(total);
    const isOver = position > total;
    this.count.textContent = isOver ? `all ${total} done` : `${position} of ${total}`;
    this.page.replaceChildren(...(isOver ? this.drawEnd() : this.drawTask()));
  }

  showStart(total) {
    this.count.textContent = `${total} pages`;
    const name = make("input", { type: "text", "aria-label": "your name or code", maxLength: 60 });
    const form = make(
      "form",
      { className: "start" },
      make("label", {}, "Your name, or any code that you keep: ", name),
      make("button", { type: "submit" }, "Start"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.tell({ act: "start", rater: name.value });
    });
    this.page.replaceChildren(form);
  }

  drawTask() {
    const answers = this.model.get("answers");
    const row = answers.map((jpeg, number) => this.drawPicture(jpeg, `answer ${number + 1}`));
    return [
      make("p", { className: "question" }, this.model.get("question")),
      make("p", {}, "The query"),
      this.drawPicture(this.model.get("query"), "the query"),
      make("p", {}, "What was found, best first"),
      make("div", { className: "answers" }, ...row),
      this.drawScale(),
    ];
  }

  drawPicture(jpeg, alt) {
    const src = URL.createObjectURL(new Blob([jpeg]));
    this.urls.push(src);
    return make("img", { src, alt, draggable: false });
  }

  drawScale() {
    const given = this.model.get("given");
    const ratings = this.model.get("scale").map((word, index) => {
      const rating = index + 1;
      const button = this.drawButton(`${rating} ${word}`, { act: "rate", rating });
      button.setAttribute("aria-pressed", rating === given);
      return button;
    });
    const back = this.drawButton("Back", { act: "back" }, "Backspace");
    back.disabled = this.model.get("position") === 1;
    return make(
      "div",
      { className: "scale", role: "group", "aria-label": "rating" },
      ...ratings,
      this.drawButton("Skip", { act: "skip" }, "S"),
      back,
    );
  }

  drawButton(label, act, key = String(act.rating)) {
    return make("button", { type: "button", title: key, onclick: () => this.tell(act) }, label);
  }

  drawEnd() {
    return [
      make("p", { className: "question" }, "Thank you: everything is rated and saved."),
      this.drawButton("Back", { act: "back" }, "Backspace"),
    ];
  }
}

function render({ model, el }) {
  const sheet = new Sheet(model, el);
  return () => sheet.dispose();
}

export default { render };
