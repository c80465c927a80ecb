// The page is rendered from two documents: the spec, and the table of error
// codes. Swagger UI renders the operations and sends the requests; this file
// adds the token, the search, the index and the list of errors.

import { samplesComponent } from "./samples.js";
import { resolve, schemaComponent } from "./schema.js";
import { matcher, words, wordsOf } from "./search.js";
import { showServices } from "./services.js";
import "./theme.js";

const root = document.documentElement;
const base = new URL("..", import.meta.url); // of the API, which may be below a path
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// The token is stored in sessionStorage, so that closing the tab deletes it.
// It is never part of a URL.

const token = {
  get: () => sessionStorage.getItem("caracal.token") ?? "",
  set(text) {
    if (text) sessionStorage.setItem("caracal.token", text);
    else sessionStorage.removeItem("caracal.token");
    $("clear").hidden = !text;
  },
};

$("token").value = token.get();
token.set(token.get());
$("token").addEventListener("input", () => token.set($("token").value.trim()));
$("clear").addEventListener("click", () => {
  $("token").value = "";
  token.set("");
  $("token").focus();
});
$("access").addEventListener("submit", (event) => event.preventDefault());

// The operations of the spec.

const methods = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

const byPathAndMethod = (a, b) =>
  a.path === b.path ? methods.indexOf(a.method) - methods.indexOf(b.method) : a.path < b.path ? -1 : 1;

function errorCodes(response) {
  const schema = response.content?.["application/json"]?.schema;
  return (response["x-problem"] && schema?.allOf?.flatMap(({ properties: { error } = {} }) => error?.enum ?? error?.properties?.problem?.enum ?? [])) || [];
}

function operationsOf(spec) {
  return Object.entries(spec.paths)
    .flatMap(([path, item]) =>
      methods.filter((method) => item[method]).map((method) => {
        const raw = item[method];
        const { operationId: id, summary, tags: [tag] } = raw;
        const codes = Object.values(raw.responses).flatMap(errorCodes);
        const names = [method, path, summary, id, tag, ...codes].join(" ").toLowerCase();
        const parameters = [...(item.parameters ?? []), ...(raw.parameters ?? [])].map((p) => resolve(spec, p).schema);
        const text = wordsOf(spec, { ...raw, parameters });
        return { id, tag, method, path, summary, codes, names, text, parameters, raw, link: `#/${tag}/${id}` };
      }))
    .sort(byPathAndMethod);
}

// prepare sets the address of the server, and removes examples that Swagger UI would
// send.
function prepare(spec, operations) {
  spec.servers = [{ url: base.href.replace(/\/$/, "") }];
  // Swagger UI fills in the examples of parameters and sends them, even
  // If-Match. Move them to the description.
  const parameters = [...Object.values(spec.components.parameters), ...operations.flatMap(({ raw }) => raw.parameters ?? [])];
  for (const parameter of parameters) {
    if (parameter.example === undefined) continue;
    parameter.description += ` For example \`${parameter.example}\`.`;
    delete parameter.example;
  }
  return spec;
}

const linkTo = (code) => `#error-${code}`;

// withBreaks inserts a line break opportunity after each underscore of a name.
const withBreaks = (name, wbr) => name.split(/(?<=_)/).flatMap((part) => [part, wbr()]);

// The plugin for Swagger UI.

// Swagger UI includes zenscroll, which would handle every link within the page. It
// would scroll slowly, place the target behind the header, and fire no hashchange.
window.noZensmooth = true;

function plugin({ React, getComponent: component }, api) {
  const { createElement: h, Fragment } = React;
  const { operations, errors } = api;
  const operationOf = (path, method) => operations.find((o) => o.path === path && o.method === method);
  const raw = (path, method) => operationOf(path, method)?.raw;
  let Schema; // of the spec, which is not read yet

  const Layout = ({ getComponent, specSelectors }) => {
    const Markdown = getComponent("Markdown", true);
    const info = specSelectors.info();
    return operations.length > 0 && h("div", { className: "swagger-ui" },
      h("section", { className: "intro" },
        h("h1", null, info.get("title")),
        h(Markdown, { source: info.get("description") }),
        h("p", { className: "download" }, "Download the OpenAPI document: ",
          ["openapi.yaml", "openapi.json"].map((name) => h("a", { key: name, href: new URL(name, base).href, download: `caracal-management-${name}` }, name)))),
      h("h2", { className: "operations-title" }, "Operations"),
      h(getComponent("operations", true)));
  };

  const colors = /("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  const Code = ({ language, children }) => {
    const text = String(children ?? "");
    if (language !== "json") return h("pre", { className: "code", tabIndex: 0 }, text);
    const parts = [];
    let end = 0;
    for (const match of text.matchAll(colors)) {
      const [matched, string, colon] = match;
      parts.push(text.slice(end, match.index));
      parts.push(h("span", { key: match.index, className: string ? (colon ? "name" : "string") : "value" }, string ?? matched), colon ?? "");
      end = match.index + matched.length;
    }
    return h("pre", { className: "code", tabIndex: 0 }, ...parts, text.slice(end));
  };

  // The command contains $CARACAL_ADMIN_TOKEN instead of the token, so that it can
  // be shared.
  const Curl = ({ request, getComponent }) => {
    const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
    const lines = [`curl -X ${request.get("method")} ${quote(request.get("url"))}`];
    for (const [name, value] of Object.entries(request.get("headers")?.toJS() ?? {})) {
      lines.push(name === "Authorization" ? '-H "Authorization: Bearer $CARACAL_ADMIN_TOKEN"' : `-H ${quote(`${name}: ${value}`)}`);
    }
    if (request.get("body")) lines.push(`-d ${quote(request.get("body"))}`);
    return h(Fragment, null,
      h("h4", null, "curl command"),
      h(getComponent("HighlightCode", true), { canCopy: true }, lines.join(" \\\n  ")));
  };

  // The path of a request's schema begins in the spec, and ends above the schema. That
  // of a response's schema begins in the response.
  const Response = React.createContext(null);
  const ModelWrapper = ({ specPath }) => {
    const response = React.useContext(Response);
    Schema ??= schemaComponent(React, api.spec, component("Markdown", true));
    const at = specPath.toJS().reduce((at, key) => at[key], specPath.first() === "content" ? response : api.spec);
    return h(Schema, { schema: at.schema ?? at });
  };

  const Problem = ({ problem: { error, error_description: sentence, requestId, details, ...rest } }) =>
    h("div", { className: "problem", role: "alert" },
      h("h5", null, h("a", { href: linkTo(error) }, h("code", null, error))),
      h("p", null, sentence),
      details?.issues && h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Field"), h("th", { scope: "col" }, "Error"))),
        h("tbody", null, details.issues.map(({ path, message }, i) =>
          h("tr", { key: i }, h("td", null, path.length ? h("code", null, path.join(".")) : "(request)"), h("td", null, message))))),
      h("dl", null,
        Object.entries({ requestId, ...rest }).map(([name, value]) =>
          h("div", { key: name }, h("dt", null, name), h("dd", null, h("code", null, typeof value === "string" ? value : JSON.stringify(value)))))));

  const ErrorCodes = ({ code: status, codes }) =>
    h("tr", { className: "response error-codes", "data-code": status },
      h("td", { className: "response-col_status" }, status),
      h("td", { className: "response-col_description" },
        h("dl", null, codes.map((code) =>
          h("div", { key: code }, h("dt", null, h("a", { href: linkTo(code) }, h("code", null, ...withBreaks(code, () => h("wbr"))))), h("dd", null, errors[code].Sentence))))));

  return {
    components: { Layout, ModelWrapper, SyntaxHighlighter: Code, curl: Curl, Samples: samplesComponent(React, api, operationOf) },
    wrapComponents: {
      operations: (Original) => (properties) =>
        properties.specSelectors.taggedOperations().size
          ? h(Original, properties)
          : h("p", { className: "message" }, "No operations found."),
      response: (Original) => (properties) => {
        const response = raw(properties.path, properties.method)?.responses[properties.code] ?? {};
        const codes = errorCodes(response);
        return codes.length ? h(ErrorCodes, { code: properties.code, codes }) : h(Response.Provider, { value: response }, h(Original, properties));
      },
      responseBody: (Original) => (properties) => {
        const problem = problemIn(properties.content);
        return h(Fragment, null, problem && h(Problem, { problem }), h(Original, properties));
      },
      execute: (Original) => (properties) =>
        h(Fragment, null, h(component("Samples", true), { path: properties.path, method: properties.method }), h(Original, properties)),
      authorizeOperationBtn: () => () => null,
      CopyToClipboardBtn: () => () => null,
    },
    statePlugins: {
      layout: {
        wrapActions: {
          show: (original) => (path, open) => {
            original(path, open);
            const [kind, tag, id] = [path].flat();
            // Opening an operation adds no entry to the history.
            if (kind === "operations") history.replaceState(null, "", open ? `#/${tag}/${id}` : location.pathname);
            markCurrent();
          },
        },
      },
    },
    fn: {
      opsFilter: (tagged, text) => {
        const matches = new Set(matching(operations, text).map((o) => o.id));
        return tagged
          .map((group) => group.update("operations", (all) => all.filter((o) => matches.has(o.getIn(["operation", "operationId"])))))
          .filter((group) => group.get("operations").size);
      },
    },
  };
}

function problemIn(text) {
  try {
    const body = JSON.parse(text);
    return body.error && body.error_description ? body : null;
  } catch {
    return null;
  }
}

// matching returns the operations that contain every word of the query.
function matching(operations, query) {
  const matches = matcher(query);
  return operations.filter((o) => matches(o.names, o.text));
}

// nameControls names the controls that Swagger UI leaves without a name for screen
// readers: the inputs of parameters, the request body and the choice of an example.
function nameControls() {
  for (const control of $("operations").querySelectorAll("input, textarea, select")) {
    if (control.labels.length || control.hasAttribute("aria-label")) continue;
    const parameter = control.closest("[data-param-name]")?.dataset.paramName;
    control.setAttribute("aria-label", parameter ?? (control.matches("select") ? "Example" : "Request body"));
  }
  for (const button of $("operations").querySelectorAll(".copy-to-clipboard button:not([aria-label])")) button.setAttribute("aria-label", "Copy");
}

function operationLink({ link, method, summary }) {
  return element("a", { href: link }, element("b", { className: `method ${method}` }, method), " ", element("span", {}, summary));
}

function showIndex(spec, operations) {
  for (const { name } of spec.tags) {
    const group = element("ul", {}, ...operations.filter((o) => o.tag === name).map((o) => element("li", { id: `index-${o.id}` }, operationLink(o))));
    $("index").append(element("section", {}, element("h2", {}, name), group));
  }
}

// markCurrent highlights the operation of the URL in the index.
function markCurrent() {
  for (const link of $("index").querySelectorAll("a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function showErrors(spec, operations, errors) {
  const v1 = operations.filter((o) => o.path.startsWith("/v1/"));
  const outside = new Set(spec["x-outside-problems"]);
  const groups = new Map([...document.querySelectorAll("[data-status]")].map((group) => [Number(group.dataset.status), group]));
  for (const [code, { Status: status, Sentence: sentence }] of Object.entries(errors)) {
    const returnedBy = operations.filter((o) => o.codes.includes(code));
    if (!returnedBy.length && !outside.has(code)) continue;
    let source;
    if (!returnedBy.length) source = element("p", {}, "Requests that match no operation.");
    else if (v1.every((o) => returnedBy.includes(o))) source = element("p", {}, "All ", element("code", {}, "/v1"), " operations.");
    else {
      source = element("ul", {}, ...returnedBy.map((o) => element("li", {}, operationLink(o))));
      if (returnedBy.length > 3) source = element("details", {}, element("summary", {}, `${returnedBy.length} operations`), source);
    }
    if (!groups.has(status)) {
      groups.set(status, element("section", {}, element("h3", {}, String(status))));
      $("errors").append(groups.get(status));
    }
    groups.get(status).append(element("article", { id: `error-${code}` },
      element("h4", {}, element("a", { href: linkTo(code) }, element("code", {}, ...withBreaks(code, () => element("wbr"))))), element("p", {}, sentence), source));
  }
  for (const group of groups.values()) group.hidden = !group.querySelector("article");
}

async function read(path) {
  const response = await fetch(new URL(path, base));
  if (!response.ok) throw new Error(`GET ${path} returned ${response.status}`);
  return response;
}

async function start() {
  const responses = await Promise.all(["openapi.yaml", "docs/errors.json"].map(read));
  const [text, errors] = [await responses[0].text(), await responses[1].json()];
  const operations = [];
  const api = { operations, errors };
  const ui = SwaggerUIBundle({
    domNode: $("operations"),
    plugins: [(system) => plugin(system, api)],
    layout: "Layout",
    docExpansion: "list",
    defaultModelExpandDepth: 3,
    operationsSorter: (a, b) => byPathAndMethod(a.toObject(), b.toObject()),
    tryItOutEnabled: true,
    displayRequestDuration: true,
    showCommonExtensions: true,
    requestInterceptor: (request) => {
      if (token.get()) request.headers.Authorization = `Bearer ${token.get()}`;
      return request;
    },
  });
  // Swagger UI reads YAML. It is the same spec as /openapi.json, but keeps the
  // order of fields and examples.
  ui.specActions.updateSpec(text);
  const spec = ui.specSelectors.specJson().toJS();
  operations.push(...operationsOf(spec));
  api.spec = prepare(spec, operations);
  new MutationObserver(nameControls).observe($("operations"), { childList: true, subtree: true });
  ui.specActions.updateJsonSpec(spec);

  $("version").textContent = spec.info.version;
  showIndex(spec, operations);
  showServices(spec, element, $("services").querySelector("tbody"));
  showErrors(spec, operations, errors);

  function search(text) {
    const matches = new Set(matching(operations, text));
    const has = matcher(text);
    for (const one of document.querySelectorAll(".intro p, #errors article")) one.hidden = !has("", words(one.textContent));
    for (const row of document.querySelectorAll("#services tbody tr")) row.hidden = !has("", words(row.textContent));
    $("services").hidden = !document.querySelector("#services tbody tr:not([hidden])");
    for (const group of document.querySelectorAll("#errors > section")) group.hidden = !group.querySelector("article:not([hidden])");
    ui.layoutActions.updateFilter(text);
    for (const o of operations) $(`index-${o.id}`).hidden = !matches.has(o);
    for (const group of $("index").children) group.hidden = !group.querySelector("li:not([hidden])");
    document.body.classList.toggle("searching", Boolean(text.trim()));
    $("found").value = text ? `${matches.size} of ${operations.length}` : "";
  }

  function clear() {
    $("search").value = "";
    search("");
  }

  // follow opens the target of the URL's hash and scrolls to it. The browser cannot
  // do so for elements that are rendered after the page is loaded.
  function follow() {
    const target = operations.find((o) => o.link === location.hash);
    if (!target) {
      markCurrent();
      const section = $(location.hash.slice(1));
      if (section?.closest("[hidden]")) clear();
      section?.scrollIntoView();
      return;
    }
    if (!matching([target], $("search").value).length) clear();
    ui.layoutActions.show(["operations-tag", target.tag], true);
    ui.layoutActions.show(["operations", target.tag, target.id], true);
    requestAnimationFrame(() => {
      const block = $(`operations-${target.tag}-${target.id}`);
      block?.scrollIntoView();
      block?.querySelector("button").focus({ preventScroll: true });
    });
  }

  $("search").addEventListener("input", () => search($("search").value));
  addEventListener("hashchange", follow);
  // A link to the current hash fires no hashchange.
  addEventListener("click", (event) => {
    const link = event.target.closest?.("a");
    if (link?.hash.startsWith("#/") && link.hash === location.hash) follow();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      $("search").select();
    }
  });
  requestAnimationFrame(follow);
}

// Swagger UI is loaded with defer: it is available at DOMContentLoaded.
addEventListener("DOMContentLoaded", () =>
  start().catch((failure) => {
    $("operations").replaceChildren(element("p", { className: "message" }, `The page cannot be displayed: ${failure.message}.`));
  }));
