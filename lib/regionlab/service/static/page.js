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
let taking = null;
let listing = 0;

// What is wanted last wins: the picture before it is given up, on its way or being searched with.
function wantPicture() {
  taking?.abort();
  asking?.abort();
  taking = new AbortController();
  return taking.signal;
}

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
  const wanted = wantPicture();
  try {
    const taken = await shrink(file);
    if (wanted.aborted) return;
    image.show({ ...taken, blob: taken.file });
    tell("");
  } catch (error) {
    if (!wanted.aborted) fail(error);
  }
}

// Returns whether it is still the picture wanted when it is there, and shows it.
async function takeListed(listed, objects) {
  const wanted = wantPicture();
  const { image_id: id, width, height, image_url: url } = listed;
  try {
    const blob = await getBlob(`${url}?size=${SHOWN_SIDE}`, wanted);
    if (wanted.aborted) return false;
    image.show({ id, blob, width, height, objects });
    tell("");
    return true;
  } catch (error) {
    if (!wanted.aborted) fail(error);
    return false;
  }
}

async function searchRegion(result, region) {
  byId("result").close();
  const box = region && { box: region.box, points: [], labels: [], text: "" };
  if (!(await takeListed(result, box && [box]))) return;
  byId("words").value = "";
  byId("ask").scrollIntoView({ block: "start" });
  await search();
}

// --- searching -----------------------------------------------------------------------------

function readFields(judged) {
  const form = byId("form");
  const fields = [["k", form.k.value || 12]];
  const prompts = image.prompts.map(([, prompt]) => prompt);
  if (prompts.length) fields.push(["prompts", JSON.stringify(prompts)]);
  for (const name of ["words", "target", "aggregation", "where"]) {
    const value = form.elements[name].value.trim();
    if (value) fields.push([name, value]);
  }
  if (Number(form.beta.value)) fields.push(["beta", form.beta.value]);
  for (const [id, liked] of judged) fields.push([liked ? "liked" : "disliked", id]);
  return fields;
}

// Returns whether there is an answer, and shows it; on a failure all stays as it was.
async function ask(judged, before) {
  asking?.abort();
  const mine = (asking = new AbortController());
  byId("results").setAttribute("aria-busy", "true");
  tell("searching…");
  try {
    if (image.unclear) throw new Error(image.unclear);
    const found = await post("/search", readFields(judged), image.source, mine.signal);
    if (mine !== asking || mine.signal.aborted) return false;
    answer = found;
    results.judged = new Map(judged);
    results.asked = new Map(judged);
    results.show(answer, before);
    tell(describe(answer));
    return true;
  } catch (error) {
    if (mine !== asking) return false;
    byId("status").textContent = "";
    fail(error);
    return false;
  } finally {
    if (mine === asking) byId("results").removeAttribute("aria-busy");
    showFeedback();
  }
}

function describe({ results: found, target, seconds }) {
  const what = { regions: "by region", images: "by whole image", both: "by region and image" };
  return `${found.length} found ${what[target]} in ${Math.round(1000 * seconds.total)} ms`;
}

async function search() {
  if (!(await ask(new Map()))) return;
  rounds.length = 0;
  showFeedback();
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
  if (!(await ask(new Map(results.judged), answer))) return;
  rounds.push(before);
  showFeedback();
}

function forget() {
  const last = rounds.pop();
  if (!last) return;
  asking?.abort(); // what is still being searched must not replace it
  answer = last.answer;
  results.judged = new Map(last.judged);
  results.asked = new Map(last.judged);
  results.show(answer, rounds.at(-1)?.answer);
  tell(describe(answer));
  showFeedback();
}

// --- the collection ------------------------------------------------------------------------

async function listCollection(from) {
  const mine = ++listing;
  const { total, images } = await getJson(`/images?start=${from}&count=${LISTED}`);
  if (mine !== listing) return; // another page was asked for since
  start = from;
  const buttons = images.map((listed) => {
    const picture = make("img", { src: listed.thumbnail_url, alt: "", loading: "lazy" });
    const button = make("button", { type: "button", "aria-label": `take ${listed.name}` }, picture);
    button.addEventListener("click", () => {
      byId("collection").close();
      takeListed(listed);
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
  byId("drop-image").addEventListener("click", () => {
    wantPicture();
    image.remove();
  });
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
