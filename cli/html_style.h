// The style sheet of `show --html`: light and dark, from a phone's width up, with the fonts the reader has.
#pragma once

namespace finchkv::cli {

inline constexpr char kPageStyle[] = R"css(
:root{--paper:#fbfaf7;--ink:#23211d;--soft:#6f6a60;--line:#e4dfd4;--card:#fff;--marker:233,150,12;--map:176,92,14;
--dim:#7d776c}
@media(prefers-color-scheme:dark){:root{--paper:#15161a;--ink:#ece7dc;--soft:#9a948a;--line:#2c2d33;--card:#1b1c21;
--marker:240,168,48;--map:240,168,72;--dim:#8c877d}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 5rem}
header{border-bottom:1px solid var(--line);padding-bottom:1.6rem}
.brand{margin:0;color:rgb(var(--map));font-size:.8rem;font-weight:600;letter-spacing:.08em}
h1{margin:.25rem 0 1.4rem;font:600 1.7rem/1.25 Charter,"Iowan Old Style",Georgia,"Liberation Serif",serif;
overflow-wrap:anywhere;text-wrap:balance}
h2{margin:0 0 1rem;font-size:1rem;font-weight:650}
section{margin-top:2.6rem}
.big{display:flex;flex-wrap:wrap;gap:1rem 2.6rem}
.big b{display:block;font-size:1.55rem;font-weight:600;line-height:1.1;font-variant-numeric:tabular-nums}
.big span{color:var(--soft);font-size:.85rem}
.map{display:grid;grid-template-columns:auto 1fr;gap:.35rem .6rem;font-size:.72rem;color:var(--soft);
font-variant-numeric:tabular-nums}
.map svg{display:block;width:100%;height:100%}
.map svg.profile{height:48px}
.profile rect{fill:rgba(var(--map),.55)}
.corner{align-self:end;text-align:right;white-space:nowrap}
.layers{display:flex;flex-direction:column;text-align:right}
.layers span{flex:1;display:flex;align-items:center;justify-content:flex-end;min-height:0;line-height:0;
white-space:nowrap}
.cells{background:var(--card);box-shadow:0 0 0 1px var(--line)}
.scale{position:relative;height:1.3em}
.scale span{position:absolute;transform:translateX(-50%)}
.scale span:first-child{transform:none}.scale span:last-child{transform:translateX(-100%)}
.s1{fill:rgba(var(--map),.14)}.s2{fill:rgba(var(--map),.34)}.s3{fill:rgba(var(--map),.64)}.s4{fill:rgb(var(--map))}
.legend{display:flex;flex-wrap:wrap;align-items:center;gap:.3rem 1.1rem;margin:.9rem 0 0;font-size:.8rem;
color:var(--soft)}
.key{display:inline-flex;align-items:center;gap:.45rem}
.key svg{width:.85rem;height:.85rem;box-shadow:0 0 0 1px var(--line)}
.swatch{width:1.5rem;margin:0 -.55rem;border-radius:0}
.note{margin:.5rem 0 0;font-size:.85rem;color:var(--soft);max-width:46rem}
.text{margin-top:1.2rem;padding:1.6rem 1.8rem;background:var(--card);border:1px solid var(--line);border-radius:4px;
color:var(--dim);font:1.03rem/1.72 Charter,"Iowan Old Style",Georgia,"Liberation Serif",serif;white-space:pre-wrap;
overflow-wrap:anywhere;hanging-punctuation:first}
mark{color:var(--ink);background:none;padding:.12em 0;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.k1{background:rgba(var(--marker),.10)}.k2{background:rgba(var(--marker),.20)}.k3{background:rgba(var(--marker),.33)}
.k4{background:rgba(var(--marker),.48)}.k5{background:rgba(var(--marker),.66)}.k6{background:rgba(var(--marker),.86)}
@media(prefers-color-scheme:dark){mark.k5,mark.k6{color:#1a1306}}
.positions{margin-top:1.2rem;overflow-x:auto}
.row{display:flex;gap:1px;height:.72rem;margin-bottom:1px;min-width:34rem}
.row i{flex:1 1 0;max-width:1rem;background-color:var(--card);box-shadow:inset 0 0 0 1px var(--line)}
.row i.k1{background:rgba(var(--marker),.10)}.row i.k2{background:rgba(var(--marker),.20)}
.row i.k3{background:rgba(var(--marker),.33)}.row i.k4{background:rgba(var(--marker),.48)}
.row i.k5{background:rgba(var(--marker),.66)}.row i.k6{background:rgba(var(--marker),.86)}
.at{flex:0 0 3.6rem;padding-right:.6rem;text-align:right;font-size:.68rem;line-height:.72rem;color:var(--soft);
font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.42rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{width:8.5rem;padding-right:1rem;font-weight:400;color:var(--soft)}
td{overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
@media(max-width:36rem){main{padding:1.5rem 1rem 3rem}h1{font-size:1.35rem}.text{padding:1rem 1.05rem;font-size:1rem}
.big{gap:.9rem 1.8rem}th{width:6.2rem}}
@media print{body{background:#fff}.text{border:0;padding:0}mark,.row i,.cells{print-color-adjust:exact;
-webkit-print-color-adjust:exact}}
)css";

}  // namespace finchkv::cli
