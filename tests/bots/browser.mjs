// A browser as far as examples/fastapi_sse.html needs one: `node browser.mjs PAGE ADDRESS`.
//
// The page's script runs as it stands, over real HTTP. There is a document with the elements that the script asks for,
// a storage for the tab, and an EventSource that reconnects as a browser's does. Lines of JSON come in on stdin:
// {"say": text} types and sends, {"stop": true} presses Stop, {"reload": true} loads the page anew, whatever is under
// way, {"store": {…}} does so with another storage. After every change that can be seen a line of JSON goes out: what
// the talk shows; before a page's script runs, "loaded".

import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import vm from "node:vm"

const [, , page, address] = process.argv
const script = readFileSync(page, "utf8").match(/<script>\n([^]*)<\/script>/)[1]
let storage = {}
let tab = null

class Tab {
  constructor() {
    this.gone = new AbortController()
    this.lines = []
    this.elements = {}
    for (const id of ["talk", "form", "text", "stop"]) this.elements[id] = { value: "", append: made => this.add(made) }
    const alive = call => (...args) => this.gone.signal.aborted ? undefined : call(...args)
    const tab = this
    vm.runInNewContext(script, {
      JSON, AbortSignal, URL,
      sessionStorage: storage,
      document: { getElementById: id => this.elements[id], createElement: () => this.made() },
      setTimeout: (call, ms) => setTimeout(alive(call), ms),
      fetch: (path, init) => this.fetch(path, init),
      EventSource: class extends Source { constructor(path) { super(tab, path) } },
    })
  }

  // What is under way when a page is left ends, and the script never hears of it.
  async fetch(path, init = {}) {
    const never = new Promise(() => {})
    try {
      const said = await fetch(new URL(path, address), { ...init, signal: this.gone.signal })
      return this.gone.signal.aborted ? never : said
    } catch (error) {
      if (this.gone.signal.aborted) return never
      throw error
    }
  }

  made() {
    const tab = this
    let text = ""
    return {
      get textContent() { return text },
      set textContent(now) { text = now; tab.show() },
      remove() { tab.lines = tab.lines.filter(one => one !== this); tab.show() },
    }
  }

  add(made) { this.lines.push(made); this.show() }

  show() {
    if (!this.gone.signal.aborted) console.log(JSON.stringify(this.lines.map(one => `${one.className}: ${one.textContent}`)))
  }
}

class Source {
  static CLOSED = 2

  constructor(tab, path) {
    this.tab = tab
    this.url = new URL(path, address).href
    this.readyState = 0
    this.refused = false
    this.heard = {}
    this.last = null
    this.open()
  }

  addEventListener(kind, call) { this.heard[kind] = call }

  close() { this.readyState = 2 }

  async open() {
    try {
      const said = await this.tab.fetch(this.url, this.last === null ? {} : { headers: { "Last-Event-ID": this.last } })
      if (said.status === 200) await this.read(said.body)
      else this.refused = true
    } catch { /* the connection broke */ }
    if (this.readyState === 2) return
    if (this.refused) this.readyState = 2
    else setTimeout(() => this.readyState === 2 || this.open(), 50)
    this.onerror?.()
  }

  async read(body) {
    let rest = ""
    for await (const bytes of body.pipeThrough(new TextDecoderStream())) {
      const [...whole] = (rest + bytes).split("\n\n")
      rest = whole.pop()
      for (const one of whole) this.tell(Object.fromEntries(one.split("\n").map(row => row.split(/: (.*)/s))))
    }
  }

  tell({ event, id, data }) {
    if (id !== undefined) this.last = id
    if (event && this.readyState !== 2 && !this.tab.gone.signal.aborted) this.heard[event]?.({ data })
  }
}

function load() {
  tab?.gone.abort()
  console.log("loaded")
  tab = new Tab()
}

load()
createInterface({ input: process.stdin }).on("line", line => {
  const { say, stop, reload, store } = JSON.parse(line)
  if (store) storage = store
  if (reload || store) load()
  if (stop) tab.elements.stop.onclick()
  if (say !== undefined) {
    tab.elements.text.value = say
    tab.elements.form.onsubmit({ preventDefault() {} })
  }
}).on("close", () => process.exit())
