// The grid of results in the browser: one button a result, and thumbs where they are asked for.

const THUMB = "M2 10h4v11H2zM8 10l5-8c2 0 2.5 1.5 2 3l-1 4h6c1.5 0 2.3 1 2 2.3l-1.8 7.2c-.3 1.3-1 2-2.3 2H8z";

function makeButton(className, label, onclick) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className, onclick });
  button.setAttribute("aria-label", label);
  return button;
}

function tell(model, event) {
  model.set("event", { ...event, count: (model.get("event").count ?? 0) + 1 });
  model.save_changes();
}

function drawResult(model, number, url) {
  const image = document.createElement("img");
  Object.assign(image, { src: url, alt: "", draggable: false });
  const title = document.createElement("span");
  title.textContent = model.get("titles")[number]; // as text, whatever it holds
  const button = makeButton("pick", `result ${number + 1}: ${title.textContent}`, () => {
    model.set("chosen", number);
    model.save_changes();
  });
  const frame = model.get("frames")[number];
  if (frame) button.style.setProperty("--frame", frame);
  button.append(image, title);
  const result = document.createElement("div");
  result.className = "result";
  result.append(button);
  if (model.get("liked")) result.append(drawThumbs(model, number));
  return result;
}

function drawThumbs(model, number) {
  const pair = document.createElement("div");
  pair.className = "thumbs";
  for (const liked of [true, false]) {
    const verb = liked ? "like" : "dislike";
    const button = makeButton(`thumb ${verb}`, `${verb} result ${number + 1}`, () => {
      const again = model.get("liked")[number] === liked; // a second click takes it back
      tell(model, { act: "judge", number, liked: again ? null : liked });
    });
    button.title = verb;
    button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${THUMB}"/></svg>`;
    pair.append(button);
  }
  return pair;
}

function drawBar(model) {
  const bar = document.createElement("div");
  bar.className = "bar";
  const again = makeButton("", "rank again", () => tell(model, { act: "rank" }));
  const undo = makeButton("undo", "undo the last judgement", () => tell(model, { act: "undo" }));
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  again.textContent = "Rank again";
  undo.textContent = "Undo";
  bar.append(again, undo, status);
  return bar;
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "regionlab-grid";
  const bar = drawBar(model); // stays, so that it keeps the focus
  root.append(bar);
  let urls = [];

  function showResults() {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = model.get("thumbs").map((jpeg) => URL.createObjectURL(new Blob([jpeg])));
    root.style.setProperty("--columns", model.get("columns"));
    root.style.setProperty("--thumb", `${model.get("thumb")}px`);
    bar.hidden = !model.get("liked");
    root.querySelectorAll(".result").forEach((result) => result.remove());
    root.append(...urls.map((url, number) => drawResult(model, number, url)));
    showState();
  }

  function showState() {
    const liked = model.get("liked");
    if (bar.hidden === Boolean(liked)) return showResults();
    root.querySelectorAll(".result").forEach((result, number) => {
      const press = (name, on) => result.querySelector(name)?.setAttribute("aria-pressed", on);
      press(".pick", model.get("chosen") === number);
      press(".like", liked?.[number] === true);
      press(".dislike", liked?.[number] === false);
    });
    bar.querySelector(".undo").disabled = !model.get("can_undo");
    bar.querySelector("span").textContent = model.get("status");
  }

  const results = "change:thumbs change:titles change:frames change:columns change:thumb";
  const state = "change:chosen change:liked change:can_undo change:status";
  model.on(results, showResults);
  model.on(state, showState);
  showResults();
  el.append(root);
  return () => {
    model.off(results, showResults);
    model.off(state, showState);
    urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
