// Creates and updates a provider with both clients. The types know which
// configuration belongs to which kind.
import createClient from "openapi-fetch";
import { createProvider, updateProvider, type NewProvider } from "./hey";
import type { components, paths } from "./schema";

const body: components["schemas"]["NewProvider"] & NewProvider = {
  name: "Ledger", kind: "api_key", config_json: { header_name: "X-Api-Key", api_key: "example" },
};
// @ts-expect-error: this configuration belongs to another kind
const wrong: components["schemas"]["NewProvider"] = { name: "Ledger", kind: "api_key", config_json: { bearer_token: "example" } };
// @ts-expect-error: this configuration belongs to another kind
const wrongToo: NewProvider = { name: "Ledger", kind: "api_key", config_json: { bearer_token: "example" } };
const path = { zoneId: "zone", id: "provider" };
const change = { config_json: { header_name: "X-Ledger-Key" } };

const typescript = createClient<paths>({ baseUrl: "http://127.0.0.1:3000" });
const created = await typescript.POST("/v1/zones/{zoneId}/providers", { params: { path }, body });
if (created.error?.error === "zone_not_found") console.log(created.error.error_description);
await typescript.PATCH("/v1/zones/{zoneId}/providers/{id}", { params: { path, header: { "If-Match": '"1"' } }, body: change });

const { data, error } = await createProvider({ path, body });
if (error?.error === "provider_identifier_conflict") console.log(error.error_description);
await updateProvider({ path: { ...path, id: data!.id }, headers: { "If-Match": '"1"' }, body: change });
console.log(wrong, wrongToo);
