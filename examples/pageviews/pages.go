package main

import "html/template"

// sitePage is a page of the site.
type sitePage struct {
	Path, Name, Title, Lead string
	Text                    template.HTML
	Buttons                 []string
}

// sitePages are all there are: what is viewed is one of them.
var sitePages = []sitePage{
	{"/", "Home", "The mill at the end of the leat", "A small site about a watermill. Walk around: what you do here is a stream.",
		`<p>Every page that you open, every button that you press and the moment at which you leave become a record in the topic
		<code>pageviews-activity</code>. A topology turns them into sessions and into the top pages of each minute, and the results
		come back to this page while you read.</p><p>Open it in a second, private window, and you are two.</p>`, []string{"Ring the bell"}},
	{"/leat", "The leat", "A channel that carries a stream to a mill", "Water is taken from the river above the weir, and kept at its height.",
		`<p>A leat leaves the river where it is still high and follows the hillside with hardly any fall. By the time it reaches the mill
		the river lies some metres below: that difference is all the power there is.</p><p>It is simple work to look after, and it is never
		finished. Leaves, ice and ducks see to that.</p>`, []string{"Open the sluice", "Clear the leaves"}},
	{"/wheel", "The wheel", "Overshot, four metres, oak and larch", "The water comes in at the top and does its work on the way down.",
		`<p>Each bucket fills at the top and empties at the bottom. The wheel turns slowly, eight times a minute, and does not mind a
		little more or less water. Up to eight tenths of the water's power reach the axle.</p><p>A wheel that stands still dries on one
		side. It is better for it to turn with nothing to do.</p>`, []string{"Stop the wheel", "Grease the axle"}},
	{"/stones", "The stones", "Two stones that never touch", "The lower one lies, the upper one runs, and between them is the width of a sheet of paper.",
		`<p>Grain falls into the eye of the runner and leaves at the rim as flour. If the stones are too far apart it is coarse, if they are
		too close it is warm, and warm flour does not keep.</p><p>A miller listens to the stones and feels the flour between two fingers.
		That is the whole of the monitoring.</p>`, []string{"Dress the stones", "Feel the flour"}},
	{"/bakery", "The bakery", "Bread on Tuesdays and Fridays", "The oven is lit at three, and at seven there is a queue.",
		`<p>Rye with a day of sourdough, wheat with a handful of rye, and on Fridays something with raisins. What is not sold by noon is
		tomorrow's soup.</p>`, []string{"A loaf, please", "Something with raisins"}},
	{"/visit", "Visit", "How to get here", "Follow the water upstream; the path is dry from April on.",
		`<p>The mill is open when the flag is up. Dogs are welcome, and so are people who ask how things work: the miller will stop the wheel
		to show you, and start it again when you have gone.</p>`, []string{"Is the flag up?"}},
}

// pageAt finds a page by its path.
func pageAt(path string) (sitePage, bool) {
	for _, p := range sitePages {
		if p.Path == path {
			return p, true
		}
	}
	return sitePage{}, false
}
