// Full-text search: an operation is found by its path, summary, tag and error codes,
// and by everything that is written about it: descriptions, and the names of its
// parameters, fields and schemas.

import { resolve } from "./schema.js";

// textOf adds the texts and names in a value of the spec, and in the schemas that it
// refers to.
function textOf(spec, value, texts, seen) {
  if (!value || typeof value !== "object" || seen.has(value)) return;
  seen.add(value);
  if (value.$ref) {
    const { name, schema } = resolve(spec, value);
    texts.add(name);
    textOf(spec, schema, texts, seen);
    return;
  }
  for (const [key, part] of Object.entries(value)) {
    if (["name", "summary", "description"].includes(key) && typeof part === "string") texts.add(part);
    if (key === "enum") part.forEach((one) => texts.add(String(one)));
    if (key === "properties" || key === "headers") Object.keys(part).forEach((name) => texts.add(name));
    if (key !== "example" && key !== "examples") textOf(spec, part, texts, seen);
  }
}

// wordsOf returns the text of an operation as words. Errors are not in it: their
// shared fields and sentences would make every operation match.
export function wordsOf(spec, { summary, description, parameters, requestBody, responses }) {
  const texts = new Set();
  const successes = Object.values(responses).filter((response) => !response["x-problem"]);
  textOf(spec, { summary, description, parameters, requestBody, successes }, texts, new Set());
  return words([...texts].join(" "));
}

// words returns a text as words in lower case, with a space before each.
export const words = (text) => ` ${text.toLowerCase().replaceAll(/[^\p{L}\p{N}_]+/gu, " ").trim()}`;

// matcher returns a function that reports whether something has every word of a
// query: anywhere in its names, or at the beginning of a word of its text.
export function matcher(query) {
  const all = query.toLowerCase().split(/\s+/).filter(Boolean);
  return (names, text) => all.every((word) => names.includes(word) || (words(word).length > 1 && text.includes(words(word))));
}
