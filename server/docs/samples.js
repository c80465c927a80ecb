// Renders the request that an operation would send, as a curl command and as Go
// code. Both read the token from $CARACAL_ADMIN_TOKEN, so that they can be shared.

import { resolve } from "./schema.js";

const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

export function curlOf({ method, url, headers, body }) {
  const lines = [`curl -X ${method.toUpperCase()} ${quote(url)}`];
  for (const [name, value] of Object.entries(headers)) {
    lines.push(name === "Authorization" ? '-H "Authorization: Bearer $CARACAL_ADMIN_TOKEN"' : `-H ${quote(`${name}: ${value}`)}`);
  }
  if (body) lines.push(`-d ${quote(body)}`);
  return lines.join(" \\\n  ");
}

// requestOf returns the request with these values of the parameters and this body.
// Path parameters without a value keep their place.
export function requestOf({ method, path, parameters, raw }, server, values, body) {
  let url = path;
  const query = new URLSearchParams();
  const anonymous = raw.security?.length === 0 || raw.security?.some((one) => Object.keys(one).length === 0);
  const headers = anonymous ? {} : { Authorization: "" };
  for (const { name, in: where } of parameters) {
    const value = values[`${where}.${name}`];
    if (value === undefined || value === null || value === "") continue;
    if (where === "path") url = url.replace(`{${name}}`, encodeURIComponent(value));
    if (where === "query") query.set(name, value);
    if (where === "header") headers[name] = value;
  }
  if (raw.requestBody) headers["Content-Type"] = mediaType(raw);
  return { method, url: server + url + (query.size ? `?${query}` : ""), headers, body: raw.requestBody && (isForm(raw) ? formOf(body) : body) };
}

const mediaType = (raw) => Object.keys(raw.requestBody.content)[0];
const isForm = (raw) => mediaType(raw) === "application/x-www-form-urlencoded";

// formOf encodes an object in JSON as a form. A list is one parameter for each element.
const formOf = (body) => String(new URLSearchParams(Object.entries(JSON.parse(body)).flatMap(([name, value]) => [value].flat().map((one) => [name, one]))));

// writtenForm returns the values of a form that the reader has written, in JSON.
const writtenForm = (written) => {
  const values = Object.entries(written.toJS()).map(([name, { value }]) => [name, value]).filter(([, value]) => value !== undefined && value !== "" && value.length !== 0);
  return JSON.stringify(Object.fromEntries(values), null, 2);
};

// Go: a call of the client.

// The names of oapi-codegen and openapi/bundle.
const initialisms = ["api", "dcr", "id", "json", "sha256", "sts", "url", "yaml"];
const goName = (name) => name.split("_").map((word) => (initialisms.includes(word) ? word.toUpperCase() : word[0].toUpperCase() + word.slice(1))).join("");
const goString = (text) => (/[`\r]/.test(text) ? JSON.stringify(text) : `\`${text}\``);
const goQuoted = (text) => JSON.stringify(text);

export function goOf(spec, { id, parameters, raw }, server, values, body) {
  const value = (where, name) => values[`${where}.${name}`];
  const args = ["ctx"];
  const lines = [`c, err := client.New(${goQuoted(server)}, os.Getenv("CARACAL_ADMIN_TOKEN"))`, "if err != nil {", "\treturn err", "}"];
  const named = (where) => parameters.filter((p) => p.in === where);
  for (const { name } of named("path")) args.push(goQuoted(String(value("path", name) || name)));
  const isList = named("query").some((p) => p.name === "cursor");
  const filters = named("query").filter((p) => p.name !== "cursor" && p.name !== "limit");
  const method = id[0].toUpperCase() + id.slice(1);
  if (filters.length) {
    const set = filters.filter((p) => value("query", p.name)).map((p) => {
      const { type } = resolve(spec, p.schema).schema;
      return `${goName(p.name)}: ${type === "string" || !type ? goQuoted(String(value("query", p.name))) : value("query", p.name)}`;
    });
    args.push(`client.${method}Params{${set.join(", ")}}`);
  }
  if (raw.requestBody) {
    lines.push(...bodyOf(spec, raw, body));
    args.push("body");
  }
  if (value("header", "If-Match")) args.push(`client.IfMatch(${goString(value("header", "If-Match"))})`);
  if (isList) {
    if (value("query", "limit")) args.push(`client.Limit(${Number(value("query", "limit")) || 0})`);
    lines.push(`for item, err := range c.${method.replace(/^List/, "")}(${args.join(", ")}) {`, "\tif err != nil {", "\t\treturn err", "\t}", '\tfmt.Printf("%+v\\n", item)', "}", "return nil");
  } else if (raw.responses["204"]) lines.push(`return c.${method}(${args.join(", ")})`);
  else lines.push(`result, err := c.${method}(${args.join(", ")})`, "if err != nil {", "\treturn err", "}", 'fmt.Printf("%+v\\n", result)', "return nil");
  return lines.join("\n");
}

// bodyOf decodes the body. A field that is an interface in Go is set as raw JSON.
function bodyOf(spec, raw, text) {
  const { name, schema } = resolve(spec, raw.requestBody.content[mediaType(raw)].schema);
  const alternatives = (schema.oneOf ?? [schema]).map((one) => resolve(spec, one).schema.properties);
  const unions = Object.entries(alternatives[0] ?? {})
    .filter(([field, { $ref }]) => resolve(spec, { $ref }).schema["x-union"] || alternatives.some((one) => one[field].$ref !== $ref)).map(([field]) => field);
  const set = [];
  try {
    const fields = JSON.parse(text);
    for (const field of unions.filter((field) => field in fields)) {
      set.push(`body.${goName(field)} = client.RawJSON(${goString(JSON.stringify(fields[field]))})`);
      delete fields[field];
    }
    if (set.length) text = JSON.stringify(fields, null, 2);
  } catch {
    // The reader is still writing it.
  }
  return [`var body client.${name}`, `if err := json.Unmarshal([]byte(${goString(text)}), &body); err != nil {`, "\treturn err", "}", ...set];
}

// samplesComponent returns a component that shows both. It is connected to Swagger
// UI's state, so it follows what the reader writes.
export function samplesComponent({ createElement: h }, api, operationOf) {
  return function Samples({ path, method, specSelectors, oas3Selectors, getComponent }) {
    const operation = operationOf(path, method);
    if (!operation) return null;
    const values = {};
    // Empty until Swagger UI has resolved the references of the operation.
    for (const parameter of specSelectors.specJsonWithResolvedSubtrees().getIn(["paths", path, method, "parameters"]) ?? []) {
      const [name, where] = [parameter.get("name"), parameter.get("in")];
      if (name) values[`${where}.${name}`] = specSelectors.parameterWithMeta([path, method], name, where).get("value");
    }
    const examples = (operation.raw.requestBody && operation.raw.requestBody.content[mediaType(operation.raw)].examples) ?? {};
    const first = Object.values(examples)[0]?.value;
    const written = oas3Selectors.requestBodyValue(path, method);
    const body = (typeof written?.toJS === "function" ? writtenForm(written) : written) ?? (first && JSON.stringify(first, null, 2)) ?? "{}";
    const { spec } = api;
    const server = spec.servers[0].url;
    const Code = getComponent("HighlightCode", true);
    return h("details", { className: "samples" },
      h("summary", null, "curl and Go"),
      h("h5", null, "curl"),
      h(Code, { canCopy: true }, curlOf(requestOf(operation, server, values, body))),
      h("h5", null, "Go, with ", h("code", null, "caracal.run/management/gen/client")),
      h(Code, { canCopy: true }, goOf(spec, operation, server, values, body)));
  };
}
