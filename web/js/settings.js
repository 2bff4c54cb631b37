// What the studio remembers in this browser: language, drafts, parameters, and the
// conversation. A browser that forbids storage makes it forget, not fail.

const prefix = 'helicon.';

/** Returns the value kept under the name, or fallback. */
export function recall(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(prefix + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keeps a value under the name. */
export function remember(name, value) {
  try {
    localStorage.setItem(prefix + name, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the value lives as long as the page.
  }
}

/** Settings of a task: {prompt, model, system, texts: {parameter: text}}. */
export const taskSettings = (task) => ({ prompt: '', model: '', system: '', texts: {}, ...recall(`task.${task}`, {}) });

/** Changes some of a task's settings. */
export const keepTaskSettings = (task, changes) => remember(`task.${task}`, { ...taskSettings(task), ...changes });
