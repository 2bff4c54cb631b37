import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

// The colours of css/base.css by name: [of day, of night].
const css = readFileSync(new URL('../css/base.css', import.meta.url), 'utf8');
const colours = Object.fromEntries([...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name, day, night]) => [name, [day, night]]));

const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const mix = (a, b, share) => channels(a).map((value, i) => share * value + (1 - share) * channels(b)[i]);

// Contrast of two colours, WCAG 2.2.
function contrast(a, b) {
  const [light, dark] = [a, b].map((rgb) => {
    const [red, green, blue] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }).sort((x, y) => y - x);
  return (light + 0.05) / (dark + 0.05);
}

for (const [theme, name] of ['day', 'night'].entries()) {
  const of = (colour) => colours[colour][theme];
  test(`text can be read by ${name}`, () => {
    for (const text of ['ink', 'muted', 'accent', 'danger']) {
      for (const ground of ['ground', 'surface']) {
        const found = contrast(channels(of(text)), channels(of(ground)));
        assert.ok(found >= 4.5, `${text} on ${ground}: ${found.toFixed(2)}`);
      }
    }
    assert.ok(contrast(channels(of('on-accent')), channels(of('accent'))) >= 4.5);
  });

  test(`chips can be read by ${name}`, () => {
    for (const state of ['queued', 'running', 'succeeded', 'danger', 'canceled']) {
      const found = contrast(channels(of(state)), mix(of(state), of('surface'), 0.15));
      assert.ok(found >= 4.5, `${state}: ${found.toFixed(2)}`);
    }
  });

  test(`controls can be seen by ${name}`, () => {
    for (const ground of ['ground', 'surface']) {
      assert.ok(contrast(channels(of('edge')), channels(of(ground))) >= 3, ground);
    }
  });
}
