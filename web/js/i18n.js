// The studio's words in English and Chinese, and which of the two is spoken.

import { en } from './messages/en.js';
import { zh } from './messages/zh.js';
import { recall, remember } from './settings.js';

const messages = { en, zh };
let current = recall('language', null) ?? preferred(globalThis.navigator?.languages ?? []);

function preferred(languages) {
  const known = languages.map((tag) => tag.slice(0, 2)).find((tag) => tag in messages);
  return known ?? 'en';
}

/** The language spoken: en or zh. */
export const language = () => current;

/** Speaks another language from now on, also after a reload. */
export function speak(tag) {
  current = tag;
  remember('language', tag);
}

/** The message of that key with {name} replaced by vars.name. */
export function t(key, vars = {}) {
  const message = messages[current][key] ?? en[key];
  if (message === undefined) return key;
  return message.replace(/\{(\w+)\}/g, (_, name) => String(vars[name] ?? ''));
}

/** The message of that key, or the server's own words where there is none. */
export const tOr = (key, fallback) => messages[current][key] ?? fallback;
