// The calls of the service, drawn from its own openapi.json: no file comes from anywhere else.

import { $, h } from "./dom.js";

const BODY = "body";

/** What is between backquotes is code. */
const words = (text) => text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));

/** What a schema takes, in a few words. */
function kind(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.filter((one) => one.type !== "null").map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  const bounds = [
    ["at least", schema.minimum],
    ["at most", schema.maximum],
  ].filter(([, bound]) => bound !== undefined);
  return [schema.type ?? "any", ...bounds.map(([told, bound]) => `${told} ${bound}`)].join(", ");
}

function table(names, rows) {
  if (!rows.length) return null;
  return h(
    "table",
    {},
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, ...[cell].flat()))))),
  );
}

const field = (name, place, schema, needed, description) => [
  h("code", {}, name),
  place,
  `${kind(schema)}${needed ? "; required" : ""}${schema?.default != null ? `; ${JSON.stringify(schema.default)} unless told` : ""}`,
  words(description ?? schema?.description ?? ""),
];

/** Parameters of the address and the headers, then the fields of a JSON body. */
function inputs(call, schemas) {
  const rows = (call.parameters ?? []).map((one) => field(one.name, one.in, one.schema, one.required, one.description));
  for (const [media, { schema }] of Object.entries(call.requestBody?.content ?? {})) {
    const whole = schema?.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
    const fields = Object.entries(whole?.properties ?? {});
    if (!fields.length) rows.push(field(media, BODY, whole, call.requestBody.required));
    for (const [name, one] of fields) rows.push(field(name, BODY, one, whole.required?.includes(name)));
  }
  return rows;
}

/** Who may call, by the document's security. */
function who(call) {
  if (!call.security?.length) return "Open to all.";
  return call.security.some((one) => !Object.keys(one).length)
    ? "Needs the token where GANSERVE_TOKEN is set."
    : "Needs the admin token.";
}

function drawn(method, path, call, schemas) {
  const [text] = (call.description ?? "").split("```");
  const answers = Object.entries(call.responses).map(([status, one]) => [
    status,
    words(one.description),
    Object.keys(one.content ?? {}).join(", "),
  ]);
  return h(
    "details",
    { class: "panel", id: call.operationId },
    h("summary", {}, h("strong", {}, method.toUpperCase()), " ", h("code", {}, path), ` ${call.summary ?? ""}`),
    ...text.split("\n\n").map((part) => h("p", {}, ...words(part))),
    h("p", { class: "hint" }, who(call)),
    table(["Name", "In", "Takes", "What"], inputs(call, schemas)),
    table(["Status", "When", "As"], answers),
    ...(call["x-codeSamples"] ?? []).map((one) => [h("p", { class: "hint" }, one.label), h("pre", {}, one.source)]).flat(),
  );
}

function show(told) {
  const schemas = told.components.schemas;
  for (const { name } of told.tags) {
    const calls = Object.entries(told.paths).flatMap(([path, item]) =>
      Object.entries(item)
        .filter(([, call]) => call.tags?.includes(name))
        .map(([method, call]) => drawn(method, path, call, schemas)),
    );
    $("nav").append(h("a", { href: `#${name}` }, name));
    $("calls").append(h("section", { "aria-labelledby": name }, h("h2", { id: name }, name), ...calls));
  }
  // An address with a call's name shows that call.
  const named = $(decodeURIComponent(location.hash.slice(1)));
  if (named?.tagName === "DETAILS") named.open = true;
  named?.scrollIntoView();
}

try {
  const answer = await fetch("openapi.json", { mode: "same-origin" });
  if (!answer.ok) throw new Error(`openapi.json: status ${answer.status}`);
  show(await answer.json());
} catch (error) {
  $("calls").append(h("p", { class: "notice problem", role: "alert" }, `The calls cannot be shown: ${error.message}`));
}
