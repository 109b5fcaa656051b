// The page: from a picture, its parts and words to what was found, and on from there.

import { getBlob, getJson, post } from "./api.js";
import { byId, make } from "./dom.js";
import { QueryImage } from "./query.js";
import { Results } from "./results.js";

const LISTED = 24; // images of the collection at a time
const SHOWN_SIDE = 1600; // pixels of the longer side that the picker shows
const SENT_SIDE = 2000; // pixels of the longer side that are sent

const image = new QueryImage();
const results = new Results({ judge: showFeedback, searchRegion });
const rounds = []; // of feedback: the answer and the judgements before each
let answer = null;
let start = 0;
let asking = null;

function fail(error) {
  if (error.name !== "AbortError") byId("error").textContent = error.message;
}

function tell(status) {
  byId("status").textContent = status;
  byId("error").textContent = "";
}

// --- pictures ------------------------------------------------------------------------------

// Large photographs are made smaller: neither model sees more than this of them.
async function shrink(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name}: this browser cannot show such a file`);
  });
  const { width, height } = bitmap;
  const scale = SENT_SIDE / Math.max(width, height);
  if (scale >= 1) return { file, width, height };
  const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const smaller = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return { file: smaller, width: canvas.width, height: canvas.height };
}

async function takeFile(file) {
  if (!file) return;
  try {
    const taken = await shrink(file);
    image.show({ ...taken, blob: taken.file });
    tell("");
  } catch (error) {
    fail(error);
  }
}

async function takeListed(listed, objects) {
  const { image_id: id, width, height, image_url: url } = listed;
  const blob = await getBlob(`${url}?size=${SHOWN_SIDE}`);
  image.show({ id, blob, width, height, objects });
  tell("");
}

async function searchRegion(result, region) {
  byId("result").close();
  const box = region && { box: region.box, points: [], labels: [], text: "" };
  try {
    await takeListed(result, box && [box]);
    byId("words").value = "";
    byId("ask").scrollIntoView({ block: "start" });
    await search();
  } catch (error) {
    fail(error);
  }
}

// --- searching -----------------------------------------------------------------------------

function readFields() {
  const form = byId("form");
  const fields = [["k", form.k.value || 12]];
  const prompts = image.prompts.map(([, prompt]) => prompt);
  if (prompts.length) fields.push(["prompts", JSON.stringify(prompts)]);
  for (const name of ["words", "against", "several"]) {
    if (form[name].value.trim()) fields.push([name, form[name].value.trim()]);
  }
  if (Number(form.beta.value)) fields.push(["beta", form.beta.value]);
  for (const [id, liked] of results.judged) fields.push([liked ? "liked" : "disliked", id]);
  return fields;
}

// Returns whether there is an answer, and shows it.
async function ask(before) {
  asking?.abort();
  asking = new AbortController();
  byId("results").setAttribute("aria-busy", "true");
  tell("searching…");
  try {
    if (image.unclear) throw new Error(image.unclear);
    answer = await post("/search", readFields(), image.source, asking.signal);
    results.show(answer, before);
    tell(describe(answer));
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    byId("status").textContent = "";
    fail(error);
    return false;
  } finally {
    byId("results").removeAttribute("aria-busy");
    showFeedback();
  }
}

function describe({ results: found, against, seconds }) {
  const what = { regions: "by region", images: "by whole image", both: "by region and image" };
  return `${found.length} found ${what[against]} in ${Math.round(1000 * seconds.total)} ms`;
}

async function search() {
  results.judged.clear();
  results.asked.clear();
  rounds.length = 0;
  if (!(await ask())) return;
  if (matchMedia("(max-width: 800px)").matches) byId("answer").scrollIntoView({ behavior: "smooth" });
}

// --- feedback ------------------------------------------------------------------------------

function showFeedback() {
  const judged = [...results.judged.values()];
  const right = judged.filter(Boolean).length;
  byId("refine").hidden = !judged.length || !answer;
  byId("refine").textContent = `Refine: ${right} right, ${judged.length - right} wrong`;
  byId("forget").hidden = !rounds.length;
}

async function refine() {
  const before = { answer, judged: new Map(results.asked) };
  if (!(await ask(answer))) return;
  rounds.push(before);
  results.asked = new Map(results.judged);
  showFeedback();
}

function forget() {
  const last = rounds.pop();
  if (!last) return;
  answer = last.answer;
  results.judged = new Map(last.judged);
  results.asked = new Map(last.judged);
  results.show(answer, rounds.at(-1)?.answer);
  tell(describe(answer));
  showFeedback();
}

// --- the collection ------------------------------------------------------------------------

async function listCollection(from) {
  const { total, images } = await getJson(`/images?start=${from}&count=${LISTED}`);
  start = from;
  const buttons = images.map((listed) => {
    const picture = make("img", { src: listed.thumbnail_url, alt: "", loading: "lazy" });
    const button = make("button", { type: "button", "aria-label": `take ${listed.name}` }, picture);
    button.addEventListener("click", () => {
      byId("collection").close();
      takeListed(listed).catch(fail);
    });
    return button;
  });
  byId("listed").replaceChildren(...buttons);
  const end = start + images.length;
  byId("where").textContent = `${(start + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  byId("previous").disabled = start === 0;
  byId("next").disabled = end >= total;
}

async function browse() {
  try {
    await listCollection(start);
    byId("collection").showModal();
  } catch (error) {
    fail(error);
  }
}

// --- wiring --------------------------------------------------------------------------------

function listen() {
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", ({ target }) => {
    takeFile(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
  byId("browse").addEventListener("click", browse);
  byId("previous").addEventListener("click", () => listCollection(Math.max(0, start - LISTED)).catch(fail));
  byId("next").addEventListener("click", () => listCollection(start + LISTED).catch(fail));
  byId("drop-image").addEventListener("click", () => image.remove());
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("refine").addEventListener("click", refine);
  byId("forget").addEventListener("click", forget);
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    takeFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => takeFile(event.clipboardData.files[0]));
}

async function introduce() {
  const { collection, images, regions, encoder, segmenter } = await getJson("/health");
  const counts = [`${images.toLocaleString("en")} images`];
  if (regions) counts.push(`${regions.toLocaleString("en")} regions`);
  byId("about").textContent = `${collection}: ${counts.join(", ")}; ${encoder} and ${segmenter}`;
}

listen();
introduce().catch(fail);
