// Elements by name, and new ones. Text goes in as text: nothing here reads markup.

export const by = (id) => document.getElementById(id);

export function make(tag, values = {}, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}
