// What a JSON schema says, in words. Knows no page.

/** A schema, or the component of `document` it refers to; what stands beside a reference wins. */
export function resolve(document, schema) {
  if (!schema?.$ref) return schema ?? {};
  const { $ref, ...beside } = schema;
  let target = document;
  for (const step of $ref.slice(2).split("/")) target = target?.[step];
  return { ...resolve(document, target), ...beside };
}

/** The kinds of value a schema allows, without null: null is as good as leaving a field out. */
export function kinds(document, schema) {
  const whole = resolve(document, schema);
  const inner = whole.anyOf ?? whole.oneOf;
  if (whole.allOf) return [together(document, whole.allOf)];
  if (!inner) return whole.type === "null" ? [] : [whole];
  return inner.flatMap((each) => kinds(document, each));
}

/** One object of several: a form, and the file it comes with. */
function together(document, parts) {
  const all = parts.map((part) => resolve(document, part));
  return { type: "object", properties: Object.assign({}, ...all.map((each) => each.properties)), required: all.flatMap((each) => each.required ?? []) };
}

/** Type and bounds in words: "integer, 1 to 128 or array of up to 64 × string". */
export function words(document, schema) {
  const all = kinds(document, schema).map((kind) => kindWords(document, kind));
  return [...new Set(all)].join(" or ") || "anything";
}

/** Whether a value may be null. */
export function nullable(document, schema) {
  const whole = resolve(document, schema);
  const inner = whole.anyOf ?? whole.oneOf;
  return inner ? inner.some((each) => nullable(document, each)) : [whole.type].flat().includes("null");
}

/** The object schemas in a value: itself, one of its kinds, or the elements of an array. */
export function objects(document, schema) {
  return kinds(document, schema).flatMap((kind) => {
    if (kind.type === "array") return objects(document, kind.items ?? {});
    return kind.properties ? [kind] : [];
  });
}

function kindWords(document, kind) {
  if ("const" in kind) return JSON.stringify(kind.const);
  if (kind.enum) return kind.enum.map((value) => JSON.stringify(value)).join(", ");
  switch (kind.type) {
    case "array":
      return arrayWords(document, kind);
    case "string":
      return withBound("string", range(kind.minLength, kind.maxLength), "character");
    case "integer":
    case "number":
      return withBound(kind.type, numbers(kind), "");
    case "object":
      return withBound("object", range(kind.minProperties, kind.maxProperties), "key");
    default:
      return [kind.type].flat().filter((type) => type !== "null").join(" or ") || "anything";
  }
}

function arrayWords(document, kind) {
  if (kind.prefixItems) return `[${kind.prefixItems.map((item) => words(document, item)).join("; ")}]`;
  const count = range(kind.minItems, kind.maxItems);
  const item = words(document, kind.items ?? {});
  return `array of ${count && `${count} × `}${item.includes(" or ") ? `(${item})` : item}`;
}

function withBound(type, bound, unit) {
  if (!bound) return type;
  const one = bound === "1" || bound.endsWith(" 1");
  return `${type}, ${bound}${unit && ` ${unit}${one ? "" : "s"}`}`;
}

function numbers(kind) {
  const low = kind.exclusiveMinimum ?? kind.minimum;
  const high = kind.exclusiveMaximum ?? kind.maximum;
  const above = kind.exclusiveMinimum !== undefined;
  const below = kind.exclusiveMaximum !== undefined;
  if (!above && !below) return range(low, high);
  const parts = [];
  if (low !== undefined) parts.push(`${above ? "above" : "from"} ${plain(low)}`);
  if (high !== undefined) parts.push(`${below ? "below" : "up to"} ${plain(high)}`);
  return parts.join(", ");
}

function range(low, high) {
  if (low === undefined && high === undefined) return "";
  if (high === undefined) return low ? `at least ${plain(low)}` : "";
  if (low === undefined) return `up to ${plain(high)}`;
  return low === high ? plain(low) : `${plain(low)} to ${plain(high)}`;
}

function plain(number) {
  return number.toLocaleString("en-GB", { maximumFractionDigits: 10 }).replaceAll(",", "\u202f");
}
