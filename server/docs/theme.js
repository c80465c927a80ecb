// The color scheme is the system's, unless the user has chosen one. The choice applies to
// the reference and to the guides.

const button = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = localStorage.getItem("caracal.theme");
  document.documentElement.style.colorScheme = chosen ?? "";
  button.setAttribute("aria-pressed", (chosen ?? (dark.matches ? "dark" : "light")) === "dark");
}

button.addEventListener("click", () => {
  const chosen = button.getAttribute("aria-pressed") === "true" ? "light" : "dark";
  // A choice that equals the system's color scheme is not stored.
  if ((chosen === "dark") === dark.matches) localStorage.removeItem("caracal.theme");
  else localStorage.setItem("caracal.theme", chosen);
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();
