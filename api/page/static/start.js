// Loads the page's scripts once what the service rendered is on the screen; at once where the page is not looked at.

const load = () => document.body.append(document.getElementById("late").content.cloneNode(true));

if (document.hidden) load();
else requestAnimationFrame(() => setTimeout(load));
