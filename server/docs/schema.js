// Renders the schema of a request or response as nested lists of fields. Of a
// union, it shows one alternative, which the reader chooses.

// resolve returns the schema that a reference refers to, or the schema itself.
export function resolve(spec, schema) {
  let name;
  while (schema?.$ref) {
    name = schema.$ref.split("/").at(-1);
    schema = schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key], spec);
  }
  return { name, schema: schema ?? {} };
}

// alternativesOf returns the alternatives of a union by the value that they belong to.
export function alternativesOf(spec, schema) {
  if (schema.discriminator) return Object.entries(schema.discriminator.mapping).map(([key, $ref]) => [key, { $ref }]);
  if (schema["x-union"]) return Object.entries(schema["x-union"]).map(([key, name]) => [key, { $ref: `#/components/schemas/${name}` }]);
  return [];
}

// merged returns a schema with allOf as one schema.
function merged(spec, schema) {
  if (!schema.allOf) return schema;
  return [...schema.allOf.map((part) => merged(spec, resolve(spec, part).schema)), schema].reduce((all, part) => ({
    ...all, ...part, allOf: undefined,
    properties: all.properties || part.properties ? { ...all.properties, ...part.properties } : undefined,
    required: [...(all.required ?? []), ...(part.required ?? [])],
  }), {});
}

const limits = {
  minLength: (n) => `at least ${n} characters`, maxLength: (n) => `at most ${n} characters`,
  minimum: (n) => `at least ${n}`, maximum: (n) => `at most ${n}`,
  minItems: (n) => `at least ${n} items`, maxItems: (n) => `at most ${n} items`,
  pattern: (text) => `matches ${text}`,
};

function typeOf(spec, schema) {
  if (schema.type === "array") return `array of ${typeOf(spec, merged(spec, resolve(spec, schema.items).schema))}`;
  return [schema.type ?? "any value", schema.format && `(${schema.format})`, schema.nullable && "or null"].filter(Boolean).join(" ");
}

// inner returns the schema of the objects in a schema: its own, or that of its
// items or values.
function inner(spec, schema) {
  const at = merged(spec, resolve(spec, schema).schema);
  if (at.items) return inner(spec, at.items);
  if (typeof at.additionalProperties === "object" && !at.properties) return inner(spec, at.additionalProperties);
  return at;
}

let count = 0;

// schemaComponent returns a component that renders a schema of the spec.
export function schemaComponent({ createElement: h, useState }, spec, Markdown) {
  const Fields = ({ schema, depth }) => {
    const [chosen, choose] = useState(0);
    const [id] = useState(() => `alternative-${++count}`);
    const alternatives = alternativesOf(spec, schema);
    if (alternatives.length) {
      const key = schema.discriminator?.propertyName ?? "kind";
      return h("div", { className: "union" },
        h("label", { htmlFor: id }, "Fields for ", h("code", null, key)),
        h("select", { id, value: chosen, onChange: (event) => choose(Number(event.target.value)) },
          alternatives.map(([value], i) => h("option", { key: value, value: i }, value))),
        h(Schema, { key: chosen, schema: alternatives[chosen][1], depth }));
    }
    const names = Object.keys(schema.properties ?? {});
    if (!names.length) return depth === 0 ? h("p", null, schema.type === "object" ? "No fields." : typeOf(spec, schema)) : null;
    return h("dl", { className: "fields" }, names.map((name) =>
      h(Field, { key: name, name, declared: schema.properties[name], required: schema.required?.includes(name), depth })));
  };

  const Field = ({ name, declared, required, depth }) => {
    const { schema: target } = resolve(spec, declared);
    const schema = merged(spec, target);
    const object = inner(spec, schema);
    const nested = object.properties || alternativesOf(spec, object).length > 0;
    const rules = Object.entries(limits).filter(([keyword]) => schema[keyword] !== undefined).map(([keyword, text]) => text(schema[keyword]));
    const note = schema["x-checked-by"] ? " The server checks further rules, which the schema does not express." : "";
    return h("div", null,
      h("dt", null, h("code", null, name), h("span", { className: "type" }, typeOf(spec, schema)),
        required && h("span", { className: "required" }, "required"), schema.writeOnly && h("span", { className: "type" }, "never returned")),
      h("dd", null,
        (schema.description || note) && h(Markdown, { source: (schema.description ?? "") + note }),
        schema.enum && h("p", null, "One of ", schema.enum.map(String).join(", ")),
        rules.length > 0 && h("p", null, rules.join(", ")),
        nested && h("details", { open: depth < 1 && !alternativesOf(spec, object).length }, h("summary", null, `Fields of ${name}`), h(Fields, { schema: object, depth: depth + 1 }))));
  };

  const Schema = ({ schema: declared, depth = 0 }) => {
    const { name, schema: target } = resolve(spec, declared);
    const schema = merged(spec, target);
    const object = inner(spec, schema);
    const label = name ?? (schema.items && `array of ${resolve(spec, schema.items).name ?? typeOf(spec, object)}`);
    return h("div", { className: "schema" },
      label && h("p", { className: "schema-name" }, label),
      schema.description && h(Markdown, { source: schema.description }),
      h(Fields, { schema: object, depth }));
  };
  return Schema;
}
