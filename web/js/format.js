// Numbers, durations and times as people read them, in the studio's language.

import { language, t } from './i18n.js';

export const number = (value, digits = 0) =>
  value.toLocaleString(language(), { maximumFractionDigits: digits });

/** Seconds as 420 ms, 2.3 s, 45 s, 2 min 5 s, 1 h 3 min. */
export function duration(seconds) {
  if (seconds < 1) return t('unit.ms', { n: number(seconds * 1000) });
  const whole = Math.round(seconds);
  if (whole < 60) return t('unit.s', { n: number(seconds, seconds < 10 ? 1 : 0) });
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return t('unit.min', { m: minutes, s: whole % 60 });
  return t('unit.h', { h: Math.floor(minutes / 60), m: minutes % 60 });
}

/** A moment as a date and a time. */
export const moment = (iso) =>
  new Date(iso).toLocaleString(language(), { dateStyle: 'medium', timeStyle: 'medium' });

// Made once: a list asks for many at a time.
const relative = Object.fromEntries(['en', 'zh'].map((tag) => [tag, new Intl.RelativeTimeFormat(tag, { numeric: 'auto', style: 'short' })]));

/** A moment seen from now: just now, 5 min ago, yesterday. */
export function ago(iso, now = Date.now()) {
  const seconds = Math.round((now - Date.parse(iso)) / 1000);
  if (seconds < 45) return t('time.now');
  const format = relative[language()];
  if (seconds < 2700) return format.format(-Math.round(seconds / 60), 'minute');
  if (seconds < 79200) return format.format(-Math.round(seconds / 3600), 'hour');
  return format.format(-Math.round(seconds / 86400), 'day');
}

/** A count of weights: 8.1 M, 1.2 B. */
export const magnitude = (value) =>
  value >= 1e9 ? `${number(value / 1e9, 1)} B` : `${number(value / 1e6, 1)} M`;

/** Seconds between two ISO times, or null where one is missing. */
export const between = (from, to) => (from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : null);
