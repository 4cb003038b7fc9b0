// Search from disk: browsers refuse Worker on file:// pages, so run its script in a hidden frame instead.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.frame = frame;
      const inner = frame.contentWindow;
      window.addEventListener("message", event => {
        if (event.source !== inner) return;
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        if (this.onmessage) this.onmessage(copy);
      });
      inner.document.open();
      inner.document.write(`<script>
        window.postMessage = data => parent.postMessage(data, "*");
        window.importScripts = (...urls) => Promise.all(urls.map(url => new Promise((done, failed) => {
          const tag = Object.assign(document.createElement("script"), { src: url, onload: done, onerror: failed });
          document.body.appendChild(tag);
        })));
      <\/script><script src="${new URL(url, location.href)}"><\/script>`);
      inner.document.close();
      this.ready = new Promise(done => (inner.document.readyState === "complete" ? done() : inner.addEventListener("load", done)));
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() { this.frame.remove(); }
  };
