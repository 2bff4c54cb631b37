// Builds elements. Strings always become text nodes, so nothing that a user or a
// model wrote can be taken for HTML, and styles are set as custom properties.

import { icons } from './icons.js';

const svgNamespace = 'http://www.w3.org/2000/svg';

/**
 * Returns a new element. In props, `on` maps event types to listeners, `vars` CSS
 * custom properties to values, `class`, `data-…`, `aria-…` and `role` are attributes,
 * and everything else is a property of the element. Children that are null,
 * undefined or false are left out.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === 'on') {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (name === 'vars') {
      for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    } else if (isAttribute(name)) {
      element.setAttribute(name, value);
    } else {
      element[name] = value;
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function isAttribute(name) {
  return name === 'class' || name === 'role' || name === 'for' || name === 'list' || name.includes('-');
}

/** Returns the icon of that name: decoration, hidden from assistive technology. */
export function icon(name) {
  const svg = document.createElementNS(svgNamespace, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  for (const d of icons[name]) {
    const path = document.createElementNS(svgNamespace, 'path');
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}

/** Returns a button with an icon, a label, or both; without a label, title names it. */
export function button({ icon: name, label, title, kind = 'quiet', onClick, ...props }) {
  return h('button', {
    type: 'button',
    class: `button ${kind}`,
    title: title ?? '',
    'aria-label': label ? undefined : title,
    on: onClick && { click: onClick },
    ...props,
  }, name && icon(name), label && h('span', {}, label));
}

/** Puts text on the clipboard, also where the page has no TLS or no leave to use the clipboard API. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch {
    // The older way is left.
  }
  const area = h('textarea', { value: text, class: 'visually-hidden' });
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** Offers text to the user as a file. */
export function downloadText(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
