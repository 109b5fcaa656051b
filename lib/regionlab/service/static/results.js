// What was found: cards with scores, outlines of what matched, why, and thumbs.

import { byId, colorOf, dot, make, makeSvg } from "./dom.js";

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

// The outlines of the regions that matched, over the picture.
function drawOutlines(result, parts) {
  const frame = { viewBox: `0 0 ${result.width} ${result.height}`, "aria-hidden": "true" };
  const paths = result.regions.flatMap(({ part, outline }) => {
    const kind = parts[part].weight < 0 ? "line unwanted" : "line";
    const line = makeSvg("path", { d: outline, class: kind });
    line.style.stroke = colorOf(part);
    return [makeSvg("path", { d: outline, class: "halo" }), line];
  });
  return makeSvg("svg", frame, ...paths);
}

function drawPicture(result, url, parts) {
  const image = make("img", { src: url, alt: "", loading: "lazy", draggable: false });
  return make("span", { className: "picture" }, image, drawOutlines(result, parts));
}

function drawIcon(name, way = "") {
  const attributes = { viewBox: "0 0 24 24", class: `icon ${way}`, "aria-hidden": "true" };
  return makeSvg("svg", attributes, makeSvg("use", { href: `#${name}` }));
}

export class Results {
  // `actions`: judge(id, liked or null), searchRegion(result, region or null).
  constructor(actions) {
    this.actions = actions;
    this.judged = new Map(); // image id -> liked
    this.asked = new Map(); // as the answer that is shown was asked for
    byId("result").addEventListener("close", () => byId("opened").replaceChildren());
  }

  show(answer, before) {
    this.parts = answer.parts;
    this.terms = Object.entries(answer.terms); // name, what it says
    this.ranks = new Map(before?.results.map(({ image_id, rank }) => [image_id, rank]));
    const cards = answer.results.map((result) => this.drawCard(result, Boolean(before)));
    byId("results").replaceChildren(...cards);
  }

  clear() {
    byId("results").replaceChildren();
  }

  drawCard(result, again) {
    const title = `${result.rank}: ${result.name}, score ${result.score.toFixed(3)}`;
    const open = make(
      "button",
      { type: "button", className: "open", "aria-label": `open result ${title}` },
      drawPicture(result, result.thumbnail_url, this.parts),
    );
    open.addEventListener("click", () => this.open(result));
    const line = make(
      "p",
      { className: "score" },
      make("b", {}, String(result.rank)),
      make("span", {}, result.score.toFixed(3)),
      again ? this.drawMove(result) : null,
    );
    const why = make("details", {}, make("summary", { "aria-label": `why result ${result.rank}` }, "Why"), this.drawWhy(result));
    const actions = make("div", { className: "actions" }, ...this.drawThumbs(result), this.drawOn(result));
    return make("li", {}, open, line, actions, why);
  }

  // Where it stood before the feedback.
  drawMove({ image_id, rank }) {
    const before = this.ranks.get(image_id);
    const moved = before === undefined ? "new" : before === rank ? "as before" : `was ${before}`;
    const way = before === undefined || before > rank ? "up" : before < rank ? "down" : "same";
    return make("span", { className: `move ${way}` }, moved);
  }

  drawThumbs(result) {
    const buttons = [true, false].map((liked) => {
      const label = `${liked ? "right" : "wrong"}: result ${result.rank}`;
      const options = { type: "button", title: liked ? "right" : "wrong", "aria-label": label };
      return make("button", { ...options, className: "judge" }, drawIcon("thumb", liked ? "up" : "down"));
    });
    const show = () => {
      const now = this.judged.get(result.image_id);
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", now === (i === 0)));
    };
    buttons.forEach((button, i) => {
      button.addEventListener("click", () => {
        this.judge(result.image_id, i === 0);
        show();
      });
    });
    show();
    return buttons;
  }

  judge(id, liked) {
    if (this.judged.get(id) === liked) this.judged.delete(id);
    else this.judged.set(id, liked);
    this.actions.judge();
  }

  // One button for each region that matched, or one for the image.
  drawOn(result) {
    const several = result.regions.length > 1;
    const targets = result.regions.length ? result.regions : [null];
    const buttons = targets.map((region) => {
      const of = several ? ` (part ${region.part + 1})` : "";
      const label = `search with this ${region ? "region" : "image"}${of}: result ${result.rank}`;
      const text = several ? null : "Search with this";
      const button = make(
        "button",
        { type: "button", title: label, "aria-label": label },
        several ? drawIcon("lens") : null,
        region ? dot(region.part) : null,
        text,
      );
      button.addEventListener("click", () => this.actions.searchRegion(result, region));
      return button;
    });
    return make("span", { className: "ons" }, ...buttons);
  }

  drawWhy(result) {
    const rows = this.terms.filter(([name], i) => i === 0 || result.terms[name] !== 0).map(
      ([name, words]) => make("tr", {}, make("th", { scope: "row" }, words), make("td", {}, signed(result.terms[name]))),
    );
    rows.push(
      make("tr", { className: "sum" }, make("th", { scope: "row" }, "score"), make("td", {}, result.score.toFixed(3))),
    );
    for (const { part, similarity } of result.regions) {
      const { label } = this.parts[part];
      const name = make("th", { scope: "row" }, dot(part), ` its region and “${label}”`);
      rows.push(make("tr", {}, name, make("td", {}, similarity.toFixed(3))));
    }
    return make("table", {}, make("tbody", {}, ...rows));
  }

  open(result) {
    byId("result-title").textContent = `${result.rank}. ${result.name}`;
    const size = `${result.width} × ${result.height} pixels`;
    const whole = make("button", { type: "button" }, "Search with the whole image");
    whole.addEventListener("click", () => this.actions.searchRegion(result, null));
    const picture = drawPicture(result, `${result.image_url}?size=1024`, this.parts);
    picture.style.setProperty("--width", result.width);
    picture.style.setProperty("--height", result.height);
    byId("opened").replaceChildren(
      picture,
      make("div", { className: "actions" }, this.drawOn(result), result.regions.length ? whole : null),
      this.drawWhy(result),
      make("p", { className: "faint" }, `${size}, id ${result.image_id}`),
    );
    byId("result").showModal();
  }
}
