// From a task's JSON Schema to the fields of a form, and from what was typed back
// to the task's input. Pure: the elements draw what is described here.

/** Inputs that have a place of their own in the studio, or are for programs, and are no parameter. */
const principal = new Set(['prompt', 'messages', 'tools', 'tool_choice', 'parallel_tool_calls', 'image', 'mask', 'mask_mode', 'preview']);

/**
 * Describes the parameters of a schema as fields:
 * {name, kind, title, description, initial, min, max, above, step, options}.
 * kind is number, integer, boolean, choice, lines, text or json; above says that min
 * itself is excluded; initial is the schema's default. An object whose members are all
 * numbers, truth values or choices is a field for each of them, named pad.left and so on.
 */
export function fieldsOf(schema) {
  return Object.entries(schema.properties ?? {})
    .filter(([name]) => !principal.has(name))
    .flatMap(([name, property]) => fieldsAt(name, resolve(property, schema), schema));
}

const single = new Set(['number', 'integer', 'boolean', 'choice']);

function fieldsAt(name, property, schema) {
  const members = Object.entries(property.properties ?? {})
    .map(([member, inner]) => fieldOf(`${name}.${member}`, resolve(inner, schema)));
  if (members.length === 0 || !members.every(({ kind }) => single.has(kind))) return [fieldOf(name, property)];
  const group = property.title ?? spoken(name);
  return members.map((member) => ({ ...member, title: `${group}: ${member.title.toLowerCase()}` }));
}

function fieldOf(name, property) {
  const kind = kindOf(property);
  const field = {
    name,
    kind,
    title: property.title ?? spoken(name.slice(name.indexOf('.') + 1)),
    description: property.description ?? '',
    initial: property.default,
  };
  if (kind === 'choice') field.options = property.enum;
  if (kind === 'number' || kind === 'integer') {
    field.min = property.minimum ?? property.exclusiveMinimum;
    field.max = property.maximum ?? property.exclusiveMaximum;
    field.above = property.minimum === undefined && property.exclusiveMinimum !== undefined;
    field.step = kind === 'integer' ? 1 : stepOf(property, field.max - field.min);
  }
  return field;
}

// Follows a reference within the schema; anything else is taken as it stands.
function resolve(property, schema) {
  if (!property.$ref?.startsWith('#/')) return property;
  const path = property.$ref.slice(2).split('/').map(unescape);
  const target = path.reduce((node, key) => node?.[key], schema);
  return { ...target, ...property };
}

function kindOf(property) {
  if (Array.isArray(property.enum)) return 'choice';
  const types = [property.type].flat();
  const type = types.find((name) => name !== 'null');
  if (type === 'number' || type === 'integer' || type === 'boolean') return type;
  if (type === 'string') return 'text';
  if (type === 'array' && property.items?.type === 'string') return 'lines';
  return 'json';
}

function stepOf(property, span) {
  if (property.multipleOf) return property.multipleOf;
  return span <= 4 ? 0.01 : 0.1;
}

const spoken = (name) => {
  const words = name.replaceAll('_', ' ');
  return words[0].toUpperCase() + words.slice(1);
};

/** A value as the text of its field. */
export function toText(field, value) {
  if (value === undefined || value === null) return '';
  if (field.kind === 'lines') return [value].flat().map(escapeLine).join('\n');
  if (field.kind === 'json') return JSON.stringify(value);
  return String(value);
}

/**
 * The value that a field's text stands for: {value}, which is undefined for an empty
 * field, or {fault} with the key of a message and its variables.
 */
export function fromText(field, text) {
  if (text.trim() === '') return { value: undefined };
  switch (field.kind) {
    case 'number':
    case 'integer':
      return numberFrom(field, text);
    case 'boolean':
      return { value: text === 'true' };
    case 'choice':
      return { value: field.options.find((option) => String(option) === text) };
    case 'lines':
      return { value: text.split('\n').filter((line) => line !== '').map(unescapeLine) };
    case 'json':
      try {
        return { value: JSON.parse(text) };
      } catch {
        return { fault: { key: 'fault.json' } };
      }
    default:
      return { value: text };
  }
}

function numberFrom(field, text) {
  const value = Number(text);
  if (!Number.isFinite(value)) return { fault: { key: 'fault.number' } };
  if (field.kind === 'integer' && !Number.isInteger(value)) return { fault: { key: 'fault.integer' } };
  const low = field.above ? value <= field.min : value < field.min;
  if (low || value > field.max) {
    if (field.min === undefined) return { fault: { key: 'fault.most', max: field.max } };
    if (field.max === undefined) return { fault: { key: 'fault.least', min: field.min } };
    return { fault: { key: field.above ? 'fault.above' : 'fault.range', min: field.min, max: field.max } };
  }
  return { value };
}

// In a list of lines, \n, \t and \\ stand for the characters that a line cannot hold.
const escapeLine = (line) => line.replace(/[\\\n\t]/g, (c) => ({ '\\': '\\\\', '\n': '\\n', '\t': '\\t' })[c]);
const unescapeLine = (line) => line.replace(/\\([\\nt])/g, (_, c) => ({ '\\': '\\', n: '\n', t: '\t' })[c]);

/**
 * Reads the fields' texts, {name: text}. Returns the input's members that are set,
 * and the faults by name. A field left empty is left out, so that the model's own
 * default holds.
 */
export function readFields(fields, texts) {
  const input = {};
  const faults = {};
  for (const field of fields) {
    const { value, fault } = fromText(field, texts[field.name] ?? '');
    if (fault) faults[field.name] = fault;
    else if (value !== undefined) put(input, field.name.split('.'), value);
  }
  return { input, faults };
}

function put(input, [name, ...rest], value) {
  if (rest.length === 0) input[name] = value;
  else put(input[name] ??= {}, rest, value);
}

/** Texts of the fields that a job's input had set. */
export function textsOf(fields, input) {
  const texts = {};
  for (const field of fields) {
    const value = field.name.split('.').reduce((node, name) => node?.[name], input);
    if (value !== undefined) texts[field.name] = toText(field, value);
  }
  return texts;
}

/**
 * The members that a problem's JSON Pointer leads through, seen from the job:
 * /input/stop/2 is stop, 2; /seed is seed.
 */
export function membersAt(pointer) {
  const path = pointer.split('/').slice(1).map(unescape);
  return path[0] === 'input' && path.length > 1 ? path.slice(1) : path;
}

const unescape = (token) => token.replaceAll('~1', '/').replaceAll('~0', '~');
