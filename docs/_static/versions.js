// The list of versions: the site's folder holds versions.json, ["dev", "0.1.0", ...], beside a folder for each of them.
// Pages that were built alone (make docs) have none, and show no list.
addEventListener("DOMContentLoaded", async () => {
  const select = document.getElementById("versions");
  if (!select || !location.protocol.startsWith("http")) return;
  const here = new URL(select.dataset.root || "./", location.href);
  const answer = await fetch(new URL("../versions.json", here)).catch(() => null);
  if (!answer?.ok) return;
  const folder = here.pathname.split("/").at(-2);
  for (const version of await answer.json()) {
    select.add(new Option(version, version, false, version === folder));
  }
  select.closest(".versions").hidden = false;
  select.addEventListener("change", () => (location.href = new URL(`../${select.value}/index.html`, here)));
});
