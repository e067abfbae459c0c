// Elements by name, and new ones. Text goes in as text: nothing here reads markup.

export const by = (id) => document.getElementById(id);

// Gives the focus to an element where what had it has gone, but on a phone not, where that would bring up its keyboard.
export function refocus(element) {
  if (document.activeElement === document.body && matchMedia("(pointer: fine)").matches) element.focus({ preventScroll: true });
}

export function make(tag, values = {}, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}
