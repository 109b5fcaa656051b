// The grid of results in the browser: one button a result.

function drawResult(model, number, url) {
  const image = document.createElement("img");
  Object.assign(image, { src: url, alt: "", draggable: false });
  const title = document.createElement("span");
  title.textContent = model.get("titles")[number]; // as text, whatever it holds
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `result ${number + 1}: ${title.textContent}`);
  button.setAttribute("aria-pressed", model.get("chosen") === number);
  const frame = model.get("frames")[number];
  if (frame) button.style.setProperty("--frame", frame);
  button.append(image, title);
  button.addEventListener("click", () => {
    model.set("chosen", number);
    model.save_changes();
  });
  return button;
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "regionlab-grid";
  let urls = [];

  function showResults() {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = model.get("thumbs").map((jpeg) => URL.createObjectURL(new Blob([jpeg])));
    root.style.setProperty("--columns", model.get("columns"));
    root.style.setProperty("--thumb", `${model.get("thumb")}px`);
    root.replaceChildren(...urls.map((url, number) => drawResult(model, number, url)));
  }

  function showChosen() {
    [...root.children].forEach((button, number) => {
      button.setAttribute("aria-pressed", model.get("chosen") === number);
    });
  }

  const results = "change:thumbs change:titles change:frames change:columns change:thumb";
  model.on(results, showResults);
  model.on("change:chosen", showChosen);
  showResults();
  el.append(root);
  return () => {
    model.off(results, showResults);
    model.off("change:chosen", showChosen);
    urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
