"""How a report looks, on a wide screen and on a phone, in light and dark: its style sheet and the few lines that draw its figures."""

STYLE = """
:root{--ground:#fafaf9;--card:#fff;--ink:#1f2328;--quiet:#5f6670;--line:#dcdfe3;--warn:#8a4b00;--warn-ground:#fff4e0}
@media(prefers-color-scheme:dark){:root{--ground:#16181b;--card:#1e2125;--ink:#e6e8ea;--quiet:#a0a7b0;--line:#363b42;--warn:#ffc069;--warn-ground:#33270f}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1500px;margin:0 auto;padding:clamp(12px,2.5vw,36px)}
h1{font-size:clamp(1.35rem,3vw,1.9rem);line-height:1.25;margin:0 0 .2em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .4em}
header p{margin:0;color:var(--quiet);overflow-wrap:anywhere}
section{margin-top:2rem}
.note{color:var(--quiet);margin:.2em 0 .8em;max-width:75em}
.warning{background:var(--warn-ground);color:var(--warn);border-radius:8px;padding:.6em .9em;margin:1em 0 0}
details>summary{cursor:pointer}
details>summary h2{display:inline}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;list-style:none;margin:0;padding:0}
.cards li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px;display:flex;flex-direction:column}
.cards span,.cards small{color:var(--quiet);font-size:.85rem}
.cards strong{font-size:1.4rem;font-weight:600;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:10px;background:var(--card);margin-bottom:1rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
th:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
thead th{color:var(--quiet);font-weight:500;white-space:normal;vertical-align:bottom}
tbody th{font-weight:500}
table.words :is(td,th){text-align:left}
table.words td{white-space:normal;overflow-wrap:anywhere;min-width:6em}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px;margin-bottom:12px}
.figures.wide{grid-template-columns:minmax(0,1fr)}
.figure{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;min-width:0}
.plot{width:100%;height:100%}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:4px 20px}
.pictures>div{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:8px}
.pictures figure{margin:0}
.pictures img{width:100%;display:block;border-radius:8px;border:1px solid var(--line)}
.pictures figcaption{color:var(--quiet);font-size:.85rem;padding:2px 2px 0}
.pictures{margin-bottom:1.2rem}
.films{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:16px 20px}
.films figure{margin:0}
.films video{width:100%;aspect-ratio:960/280;display:block;border-radius:8px;border:1px solid var(--line);background:#000}
.films figcaption{font-size:.85rem;padding:2px 2px 0}
"""

# Figures are drawn when they come into view, which spares a phone, and follow the reader's choice of light or dark.
SCRIPT = """
(function(){
const css=name=>getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const theme=()=>({'font.color':css('--ink'),'xaxis.gridcolor':css('--line'),'yaxis.gridcolor':css('--line'),
 'xaxis.zerolinecolor':css('--line'),'yaxis.zerolinecolor':css('--line')});
const touch=matchMedia('(pointer: coarse)').matches;
function ink(data){const now=css('--ink');return data.map(t=>{const c=JSON.parse(JSON.stringify(t));
 if(c.line&&c.line.color==='ink')c.line.color=now;return c})}
function draw(box){
 const told=JSON.parse(box.querySelector('script').textContent),plot=box.querySelector('.plot'),own=told.layout;
 const layout=Object.assign({},own,{paper_bgcolor:'rgba(0,0,0,0)',plot_bgcolor:'rgba(0,0,0,0)',
  font:{family:'system-ui,sans-serif',size:12,color:css('--ink')},title:{text:own.title.text,font:{size:14},x:0.02,xanchor:'left',y:0.97},
  margin:{l:58,r:14,t:44,b:70},modebar:{bgcolor:'rgba(0,0,0,0)',color:css('--quiet')},
  legend:{orientation:'h',traceorder:'normal',yref:'container',y:0.01,yanchor:'bottom',x:0},hovermode:own.hovermode||'closest',dragmode:touch?false:'zoom',
  xaxis:Object.assign({automargin:true,gridcolor:css('--line'),zerolinecolor:css('--line')},own.xaxis),
  yaxis:Object.assign({automargin:true,gridcolor:css('--line'),zerolinecolor:css('--line')},own.yaxis)});
 Plotly.newPlot(plot,ink(told.data),layout,{responsive:true,displaylogo:false,displayModeBar:touch?false:'hover'});
 box.drawn=told;
}
const boxes=[...document.querySelectorAll('.figure')];
if('IntersectionObserver' in window){
 const seen=new IntersectionObserver(found=>found.forEach(f=>{
  if(f.isIntersecting&&!f.target.drawn){draw(f.target);seen.unobserve(f.target)}}),
  {rootMargin:'600px'});
 boxes.forEach(box=>seen.observe(box));
}else boxes.forEach(draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change',()=>boxes.filter(b=>b.drawn).forEach(b=>{
 const plot=b.querySelector('.plot');Plotly.react(plot,ink(b.drawn.data),plot.layout);Plotly.relayout(plot,theme())}));
})();
"""
