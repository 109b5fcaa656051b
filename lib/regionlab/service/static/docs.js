// The API's page: draws what /openapi.json says, without anything from another host.

import { getJson } from "./api.js";
import { byId, make } from "./dom.js";

const EXAMPLES = {
  "/search": (host) =>
    `curl ${host}/search -F words="a red circle" -F k=5\n` +
    `curl ${host}/search -F image=@photo.jpg \\\n` +
    `  -F 'prompts=[{"kind": "box", "x0": 20, "y0": 30, "x1": 90, "y1": 120}]'\n` +
    `curl ${host}/search -F image=@photo.jpg -F 'prompts=[\n` +
    `  {"kind": "points", "xy": [[40, 60], [80, 20]], "labels": [1, 0]},\n` +
    `  {"kind": "text", "words": "a blue square", "weight": -0.5}]'`,
  "/mask": (host) =>
    `curl ${host}/mask -F image=@photo.jpg -F 'prompts=[{"kind": "points", "xy": [[40, 60]]}]'`,
  "/image/{image_id}": (host) => `curl ${host}/image/2000001?size=320 -o thumbnail.jpg`,
  "/images": (host) => `curl "${host}/images?start=0&count=24"`,
  "/health": (host) => `curl ${host}/health`,
};

function nameOf(reference) {
  return reference.split("/").at(-1);
}

function link(name) {
  return make("a", { href: `#${name}` }, name);
}

// A schema in few words: nodes and strings.
function describeType(schema) {
  if (schema.$ref) return [link(nameOf(schema.$ref))];
  if (schema.contentSchema) return ["JSON: ", ...describeType(schema.contentSchema)];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  const several = (schema.anyOf ?? schema.oneOf)?.filter(({ type }) => type !== "null");
  if (several) return several.flatMap((one, i) => [i ? " or " : "", ...describeType(one)]);
  if (schema.type === "array") {
    const items = schema.prefixItems ?? [schema.items ?? {}];
    const parts = items.flatMap((one, i) => [i ? ", " : "", ...describeType(one)]);
    return schema.prefixItems ? ["(", ...parts, ")"] : ["list of ", ...parts];
  }
  if (schema.contentMediaType) return ["file"];
  if (schema.additionalProperties) return ["object of ", ...describeType(schema.additionalProperties)];
  return [(schema.type ?? "any") + describeRange(schema)];
}

function describeRange({ minimum, maximum, exclusiveMinimum, maxLength }) {
  if (maxLength) return `, at most ${maxLength} characters`;
  const low = minimum !== undefined ? `from ${minimum}` : exclusiveMinimum !== undefined ? `above ${exclusiveMinimum}` : "";
  const high = maximum !== undefined ? `to ${maximum}` : "";
  return low || high ? ` ${[low, high].filter(Boolean).join(" ")}` : "";
}

function describeNeed(schema, required) {
  if (required) return "required";
  return schema.default === undefined ? "" : `default ${JSON.stringify(schema.default)}`;
}

function drawTable(rows) {
  const lines = rows.map(({ name, schema, required, description }) =>
    make(
      "tr",
      {},
      make("td", {}, make("code", {}, name)),
      make("td", {}, ...describeType(schema)),
      make("td", {}, describeNeed(schema, required)),
      make("td", {}, description ?? schema.description ?? ""),
    ),
  );
  const head = ["name", "type", "", ""].map((title) => make("th", { scope: "col" }, title));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
  return make("div", { className: "scroll" }, table);
}

function drawSchema(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => ({
    name,
    schema: one,
    required: schema.required?.includes(name),
  }));
  return drawTable(rows);
}

function drawAnswers(responses) {
  const rows = Object.entries(responses).map(([status, { description, content }]) => {
    const [type, { schema } = {}] = Object.entries(content ?? {})[0] ?? [];
    const known = schema && Object.keys(schema).length;
    return make(
      "tr",
      {},
      make("td", {}, make("code", {}, status)),
      make("td", {}, ...(known ? describeType(schema) : [type ?? ""])),
      make("td", {}, description),
    );
  });
  return make("div", { className: "scroll" }, make("table", {}, make("tbody", {}, ...rows)));
}

function drawOperation(path, method, operation, schemas) {
  const parameters = (operation.parameters ?? []).map(({ name, schema, required, description }) => ({
    name,
    schema,
    required,
    description,
  }));
  const [type, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const example = EXAMPLES[path]?.(location.origin);
  return make(
    "section",
    {},
    make("h2", {}, make("span", { className: "method" }, method.toUpperCase()), path),
    make("p", {}, operation.description ?? ""),
    example ? make("pre", { tabIndex: 0 }, example) : null,
    parameters.length ? make("h3", {}, "Parameters") : null,
    parameters.length ? drawTable(parameters) : null,
    body ? make("h3", {}, `Fields (${type})`) : null,
    body ? drawSchema(schemas[nameOf(body.schema.$ref)]) : null,
    make("h3", {}, "Answers"),
    drawAnswers(operation.responses),
  );
}

async function draw() {
  const { paths, components } = await getJson("/openapi.json");
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => drawOperation(path, method, one, components.schemas)),
  );
  const schemas = Object.entries(components.schemas).map(([name, schema]) =>
    make(
      "section",
      { id: name },
      make("h2", {}, name),
      make("p", {}, schema.description ?? ""),
      drawSchema(schema),
    ),
  );
  byId("docs").append(...operations, ...schemas);
  document.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`)?.scrollIntoView();
}

draw().catch((error) => (byId("error").textContent = error.message));
