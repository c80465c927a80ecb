// The page is made from two documents: the spec, and the sentence of every
// error code. Swagger UI draws the operations and sends what is tried; around
// it are the token, the search, the index and the errors.

const root = document.documentElement;
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Light or dark: as the system has it, until somebody says otherwise.

const dark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = localStorage.getItem("caracal.theme");
  root.style.colorScheme = chosen ?? "";
  $("theme").setAttribute("aria-pressed", (chosen ?? (dark.matches ? "dark" : "light")) === "dark");
}

$("theme").addEventListener("click", () => {
  const chosen = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  // Back to what the system says is back to following it.
  if ((chosen === "dark") === dark.matches) localStorage.removeItem("caracal.theme");
  else localStorage.setItem("caracal.theme", chosen);
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();

// The token lives as long as the tab: neither an address nor a file of the
// browser ever holds it.

const token = {
  get: () => sessionStorage.getItem("caracal.token") ?? "",
  set(text) {
    if (text) sessionStorage.setItem("caracal.token", text);
    else sessionStorage.removeItem("caracal.token");
    $("forget").hidden = !text;
  },
};

$("token").value = token.get();
token.set(token.get());
$("token").addEventListener("input", () => token.set($("token").value.trim()));
$("forget").addEventListener("click", () => {
  $("token").value = "";
  token.set("");
  $("token").focus();
});
$("access").addEventListener("submit", (event) => event.preventDefault());

// What the spec says.

const methods = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

const inOrder = (a, b) =>
  a.path === b.path ? methods.indexOf(a.method) - methods.indexOf(b.method) : a.path < b.path ? -1 : 1;

function codesOf(response) {
  const schema = response.content?.["application/json"]?.schema;
  return (response["x-problem"] && schema?.allOf?.flatMap((part) => part.properties?.error?.enum ?? [])) || [];
}

function operationsOf(spec) {
  return Object.entries(spec.paths)
    .flatMap(([path, item]) =>
      methods.filter((method) => item[method]).map((method) => {
        const raw = item[method];
        const { operationId: id, summary, tags: [tag] } = raw;
        const codes = Object.values(raw.responses).flatMap(codesOf);
        const words = [method, path, summary, id, tag, ...codes].join(" ").toLowerCase();
        return { id, tag, method, path, summary, codes, words, raw, link: `#/${tag}/${id}` };
      }))
    .sort(inOrder);
}

// prepare makes the spec say what Swagger UI would leave out, and takes out
// what it would make too much of.
function prepare(spec, operations) {
  spec.servers = [{ url: location.origin }];
  // It would fill in examples and send them, even the If-Match of somebody
  // else's item.
  const parameters = [...Object.values(spec.components.parameters), ...operations.flatMap(({ raw }) => raw.parameters ?? [])];
  for (const parameter of parameters) {
    if (parameter.example === undefined) continue;
    parameter.description += ` For example \`${parameter.example}\`.`;
    delete parameter.example;
  }
  for (const schema of Object.values(spec.components.schemas).flatMap((one) => [one, ...Object.values(one.properties ?? {})])) {
    if (schema["x-checked-by"]) schema.description = `${schema.description ?? ""} More is checked than a schema can say.`;
  }
  return spec;
}

const linkTo = (code) => `#error-${code}`;

// breakable is a name that may be broken after each underscore.
const breakable = (name, wbr) => name.split(/(?<=_)/).flatMap((part) => [part, wbr()]);

// What Swagger UI shows, and how.

// It comes with a library that would follow every link within the page in its
// own way: slowly, to under the header, and without a hashchange.
window.noZensmooth = true;

function plugin({ React: { createElement: h, Fragment } }, operations, errors) {
  const raw = (path, method) => operations.find((o) => o.path === path && o.method === method)?.raw;

  const Layout = ({ getComponent, specSelectors }) => {
    const Markdown = getComponent("Markdown", true);
    const info = specSelectors.info();
    return operations.length > 0 && h("div", { className: "swagger-ui" },
      h("section", { className: "intro" },
        h("h1", null, info.get("title")),
        h(Markdown, { source: info.get("description") })),
      h(getComponent("operations", true)));
  };

  const colours = /("(?:\\.|[^"\\])*")(\s*:)?|\b(?:true|false|null)\b|-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  const Code = ({ language, children }) => {
    const text = String(children ?? "");
    if (language !== "json") return h("pre", { className: "code", tabIndex: 0 }, text);
    const shown = [];
    let end = 0;
    for (const found of text.matchAll(colours)) {
      const [whole, string, colon] = found;
      shown.push(text.slice(end, found.index));
      shown.push(h("span", { key: found.index, className: string ? (colon ? "name" : "string") : "value" }, string ?? whole), colon ?? "");
      end = found.index + whole.length;
    }
    return h("pre", { className: "code", tabIndex: 0 }, ...shown, text.slice(end));
  };

  // The command names the variable that caracald dev sets, so that nobody
  // shows or sends on a token with it.
  const Curl = ({ request, getComponent }) => {
    const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
    const lines = [`curl -X ${request.get("method")} ${quote(request.get("url"))}`];
    for (const [name, value] of Object.entries(request.get("headers")?.toJS() ?? {})) {
      lines.push(name === "Authorization" ? '-H "Authorization: Bearer $CARACAL_ADMIN_TOKEN"' : `-H ${quote(`${name}: ${value}`)}`);
    }
    if (request.get("body")) lines.push(`-d ${quote(request.get("body"))}`);
    return h(Fragment, null,
      h("h4", null, "As a command"),
      h(getComponent("HighlightCode", true), { canCopy: true }, lines.join(" \\\n  ")));
  };

  const EnumModel = ({ value }) => h("span", { className: "prop-enum" }, "one of ", value.map(String).join(", "));

  const Problem = ({ problem: { error, error_description: sentence, requestId, details, ...rest } }) =>
    h("div", { className: "problem", role: "alert" },
      h("h5", null, h("a", { href: linkTo(error) }, h("code", null, error))),
      h("p", null, sentence),
      details?.issues && h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Where"), h("th", { scope: "col" }, "What is wrong"))),
        h("tbody", null, details.issues.map(({ path, message }, i) =>
          h("tr", { key: i }, h("td", null, path.length ? h("code", null, path.join(".")) : "the whole"), h("td", null, message))))),
      h("dl", null,
        Object.entries({ requestId, ...rest }).map(([name, value]) =>
          h("div", { key: name }, h("dt", null, name), h("dd", null, h("code", null, typeof value === "string" ? value : JSON.stringify(value)))))));

  const Refusals = ({ code: status, codes }) =>
    h("tr", { className: "response refusals", "data-code": status },
      h("td", { className: "response-col_status" }, status),
      h("td", { className: "response-col_description" },
        h("dl", null, codes.map((code) =>
          h("div", { key: code }, h("dt", null, h("a", { href: linkTo(code) }, h("code", null, ...breakable(code, () => h("wbr"))))), h("dd", null, errors[code].Sentence))))));

  return {
    components: { Layout, EnumModel, SyntaxHighlighter: Code, curl: Curl },
    wrapComponents: {
      operations: (Original) => (properties) =>
        properties.specSelectors.taggedOperations().size
          ? h(Original, properties)
          : h("p", { className: "waiting" }, "No operation is like that."),
      response: (Original) => (properties) => {
        const codes = codesOf(raw(properties.path, properties.method)?.responses[properties.code] ?? {});
        return codes.length ? h(Refusals, { code: properties.code, codes }) : h(Original, properties);
      },
      responseBody: (Original) => (properties) => {
        const problem = problemIn(properties.content);
        return h(Fragment, null, problem && h(Problem, { problem }), h(Original, properties));
      },
      authorizeOperationBtn: () => () => null,
      CopyToClipboardBtn: () => () => null,
    },
    statePlugins: {
      layout: {
        wrapActions: {
          show: (original) => (what, shown) => {
            original(what, shown);
            const [kind, tag, id] = [what].flat();
            // Opening is no step that Back should undo.
            if (kind === "operations") history.replaceState(null, "", shown ? `#/${tag}/${id}` : location.pathname);
            mark();
          },
        },
      },
    },
    fn: {
      opsFilter: (tagged, text) => {
        const wanted = new Set(found(operations, text).map((o) => o.id));
        return tagged
          .map((group) => group.update("operations", (all) => all.filter((o) => wanted.has(o.getIn(["operation", "operationId"])))))
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

// found has every word of the text somewhere in it.
function found(operations, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return operations.filter((o) => words.every((word) => o.words.includes(word)));
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

// mark says in the index which operation the address means.
function mark() {
  for (const link of $("index").querySelectorAll("a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function showErrors(spec, operations, errors) {
  const managed = operations.filter((o) => o.path.startsWith("/v1/"));
  const outside = new Set(spec["x-outside-problems"]);
  const groups = new Map([...document.querySelectorAll("[data-status]")].map((group) => [Number(group.dataset.status), group]));
  for (const [code, { Status: status, Sentence: sentence }] of Object.entries(errors)) {
    const from = operations.filter((o) => o.codes.includes(code));
    if (!from.length && !outside.has(code)) continue;
    let where;
    if (!from.length) where = element("p", {}, "Where no operation is.");
    else if (managed.every((o) => from.includes(o))) where = element("p", {}, "Every operation below ", element("code", {}, "/v1"), ".");
    else {
      where = element("ul", {}, ...from.map((o) => element("li", {}, operationLink(o))));
      if (from.length > 3) where = element("details", {}, element("summary", {}, `${from.length} operations`), where);
    }
    if (!groups.has(status)) {
      groups.set(status, element("section", {}, element("h3", {}, String(status))));
      $("errors").append(groups.get(status));
    }
    groups.get(status).append(element("article", { id: `error-${code}` },
      element("h4", {}, element("a", { href: linkTo(code) }, element("code", {}, ...breakable(code, () => element("wbr"))))), element("p", {}, sentence), where));
  }
  for (const group of groups.values()) group.hidden = !group.querySelector("article");
}

async function read(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
  return answer;
}

async function start() {
  const answers = await Promise.all(["/openapi.yaml", "/docs/errors.json"].map(read));
  const [text, errors] = [await answers[0].text(), await answers[1].json()];
  const operations = [];
  const ui = SwaggerUIBundle({
    domNode: $("operations"),
    plugins: [(system) => plugin(system, operations, errors)],
    layout: "Layout",
    docExpansion: "list",
    defaultModelExpandDepth: 3,
    operationsSorter: (a, b) => inOrder(a.toObject(), b.toObject()),
    tryItOutEnabled: true,
    displayRequestDuration: true,
    showCommonExtensions: true,
    requestInterceptor: (request) => {
      if (token.get()) request.headers.Authorization = `Bearer ${token.get()}`;
      return request;
    },
  });
  // Swagger UI reads YAML. It is the same spec as /openapi.json, but things are
  // in the order in which they were written, members and examples too.
  ui.specActions.updateSpec(text);
  const spec = ui.specSelectors.specJson().toJS();
  operations.push(...operationsOf(spec));
  ui.specActions.updateJsonSpec(prepare(spec, operations));

  $("version").textContent = spec.info.version;
  showIndex(spec, operations);
  showErrors(spec, operations, errors);

  function search(text) {
    const shown = new Set(found(operations, text));
    ui.layoutActions.updateFilter(text);
    for (const o of operations) $(`index-${o.id}`).hidden = !shown.has(o);
    for (const group of $("index").children) group.hidden = !group.querySelector("li:not([hidden])");
    document.body.classList.toggle("searching", Boolean(text.trim()));
    $("found").value = text ? `${shown.size} of ${operations.length}` : "";
  }

  // follow goes where the address says; what is not there yet when the address
  // changes, the browser cannot find by itself.
  function follow() {
    const wanted = operations.find((o) => o.link === location.hash);
    if (!wanted) {
      mark();
      $(location.hash.slice(1))?.scrollIntoView();
      return;
    }
    if (!found([wanted], $("search").value).length) {
      $("search").value = "";
      search("");
    }
    ui.layoutActions.show(["operations-tag", wanted.tag], true);
    ui.layoutActions.show(["operations", wanted.tag, wanted.id], true);
    requestAnimationFrame(() => {
      const place = $(`operations-${wanted.tag}-${wanted.id}`);
      place?.scrollIntoView();
      place?.querySelector("button").focus({ preventScroll: true });
    });
  }

  $("search").addEventListener("input", () => search($("search").value));
  addEventListener("hashchange", follow);
  // A link to where one is already is no change, and still means: go there.
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

// This runs before Swagger UI is there; when the document is complete, it is.
addEventListener("DOMContentLoaded", () =>
  start().catch((failure) => {
    $("operations").replaceChildren(element("p", { className: "waiting" }, `The page cannot be shown: ${failure.message}.`));
  }));
