// The theme that the visitor chose, set before the first paint; without one the system decides.
// This is a classic script on purpose: a module would run after the page has been painted.
"use strict";
try {
  const chosen = localStorage.getItem("sd-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing for this page shows the system's theme.
}
