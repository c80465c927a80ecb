// Renders the table of the services whose configuration the spec has as examples of
// createProvider: the examples with an authorization endpoint.

import { resolve } from "./schema.js";

// What every provider has, or what only an example has.
const basic = ["authorization_endpoint", "token_endpoint", "allowed_token_hosts", "client_auth_method", "client_id", "client_secret", "redirect_uri", "scopes"];

export function showServices(spec, element, body) {
  const examples = spec.paths["/v1/zones/{zoneId}/providers"].post.requestBody.content["application/json"].examples;
  const code = (text) => element("code", {}, text);
  const lines = (texts) => texts.map((text) => element("div", {}, code(text)));
  for (const example of Object.values(examples)) {
    const { summary, value } = resolve(spec, example).schema;
    const { config_json: config } = value;
    if (!config?.authorization_endpoint) continue;
    const differs = Object.entries(config).filter(([name]) => !basic.includes(name))
      .map(([name, text]) => `${name}: ${typeof text === "string" ? JSON.stringify(text) : JSON.stringify(text, null, 1).replaceAll(/\n */g, " ")}`);
    body.append(element("tr", {},
      element("th", { scope: "row" }, summary,
        element("details", {}, element("summary", {}, "Request"), element("pre", { className: "code", tabIndex: 0 }, JSON.stringify(value, null, 2)))),
      element("td", {}, ...lines([config.authorization_endpoint, config.token_endpoint])),
      element("td", {}, ...lines([`client_auth_method: ${JSON.stringify(config.client_auth_method)}`, ...differs]))));
  }
}
