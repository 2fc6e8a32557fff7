"""The classes, the words that name them in file names, and the vocabulary of the model.

File names of Openclipart mix English, Italian and French with the names of authors. A picture has a
class only where its file name (or its description in Tux Paint) has words of exactly one class.
"""

from __future__ import annotations

import re

# By class: the words, and the phrases with hyphens, that name it in file names and descriptions.
CLASSES: dict[str, str] = {
    "airplane": "airplane aircraft plane jet raptor aereo small-airplane",
    "ambulance": "ambulance ambulans ambulanza",
    "apple": "apple apples mela red-apple green-apple",
    "avocado": "avocado",
    "axe": "axe hatchet ascia",
    "backpack": "backpack zaino rucksack",
    "bag": "bag bags shopping-bags sack sacco",
    "ball": "ball football beachball 8ball 9ball ballon beach-ball pool-8-ball billiards "
    "cricket-ball american-football rugby-football rugby",
    "balloon": "balloon balloons ballons palloncini mongolfiera aerestatico",
    "banana": "banana bananas",
    "barrel": "barrel barile oil-drum",
    "baseball": "baseball basebalm softball",
    "basket": "basket cestino cesta",
    "basketball": "basketball",
    "bat": "bat pipistrello",
    "bathtub": "bathtub vasca",
    "battery": "battery pila",
    "bear": "bear orso bears polar-bear",
    "bed": "bed letto",
    "bee": "bee hornet wasp honeybee vespa abeille",
    "beer": "beer birra beer-mug clinking-beer-mugs",
    "bell": "bell bells campana bellhop-bell",
    "bicycle": "bicycle bike bicicletta vtt",
    "bird": "bird uccello gull seagull gabbiano dove crow cormorant puffin pennuto01 pennuto02 "
    "bluebird sparrow heron pelican robin stork pigeon colombo colombo2 toucan magpie kookaburra "
    "finch ostrich struzzo blackbird dodo flamand",
    "blueberries": "blueberries blueberry",
    "boat": "boat ship sailboat trawler barca nave veliero speedboat motorboat ferry canoe kayak",
    "bomb": "bomb bomba",
    "bone": "bone osso",
    "book": "book books libro bible orange-book",
    "boot": "boot boots stivale stivali hiking-boot womans-boot",
    "bottle": "bottle bottled bottiglia biberon bottle-with-popping-cork lotion-bottle "
    "baby-bottle glass-bottle beer-bottle",
    "bowl": "bowl scodella ciotola bowl-with-spoon steaming-bowl",
    "box": "box boxes scatola scatolone package pacco",
    "bread": "bread toast baguette pane baguette-bread flatbread",
    "briefcase": "briefcase valigetta",
    "broccoli": "broccoli",
    "broom": "broom scopa",
    "bucket": "bucket secchio",
    "buffalo": "bison ox buffalo water-buffalo",
    "building": "building skyscraper office-building hotel hospital bank school post-office "
    "department-store convenience-store palazzo",
    "bulb": "bulb lightbulb lampadina light-bulb",
    "burger": "burger hamburger cheeseburger",
    "bus": "bus bus1 bus2 trolleybus",
    "butterfly": "butterfly farfalla farfalle xanthia monarch-butterfly",
    "cactus": "cactus cacuts",
    "cake": "cake torta gateau cake1 pudding shortcake",
    "calculator": "calculator calcolatrice",
    "calendar": "calendar calendario",
    "camel": "camel cammello dromedary",
    "camera": "camera camcorder fotografica telecamera movie-camera video-camera",
    "can": "can lattine canned-food tin-can",
    "candle": "candle candela menorah candles",
    "candy": "candy lollipop candy-cane",
    "car": "car auto autos hummer bmw redcar sportcar skoda blazer cobra dodge toyota chevrolet "
    "celebrit 4wd automobile racing-car sport-utility-vehicle sedan pickup-car "
    "oncoming-automobile vw-beetle",
    "carrot": "carrot carrots",
    "cart": "cart shopping-cart carrello",
    "castle": "castle fort fortress castello",
    "cat": "cat gatto gatti housecat kitten cat-face black-cat",
    "chair": "chair sedia poltrona seat armchair",
    "cheese": "cheese formaggio cheese-wedge",
    "cherry": "cherry cherries",
    "chess piece": "chess chess-pawn chess-king chess-queen chess-knight chess-bishop chess-rook",
    "chick": "chick hatching-chick baby-chick front-facing-baby-chick",
    "chicken": "chicken hen pollo gallina",
    "chocolate": "chocolate chocolate-bar",
    "christmas tree": "christmas-tree xmas-tree",
    "church": "church cathedral monastery chiesa",
    "clock": "clock orologio cronometro stopwatch clockface alarm sveglia three-oclock "
    "ten-thirty oclock",
    "cloud": "cloud clouds nuvola",
    "coin": "coin penny nickel dime coins cent",
    "compass": "compass bussola",
    "computer": "computer workstation desktop server computer1 computer2 pc desktop-computer",
    "computer mouse": "computer-mouse",
    "cookie": "cookie cookies biscuit fortune-cookie",
    "corn": "corn pannocchia ear-of-corn",
    "couch": "couch couch-and-lamp sofa divano",
    "cow": "cow mucca bull toro vacca mhooo calf",
    "crab": "crab granchio",
    "crocodile": "crocodile alligator coccodrillo",
    "croissant": "croissant",
    "crown": "crown couronne corona",
    "cucumber": "cucumber pickle cetriolo",
    "cup": "cup mug teacup coffee tazza kubek cuppa coffe hot-beverage cup-with-straw "
    "teacup-without-handle",
    "cupcake": "cupcake muffin muffin1 muffin2 muffin3",
    "deer": "deer fawn antilope moose elk reindeer doe",
    "dice": "dice die dado",
    "dinosaur": "dino dinosauro dinosauri dinosaur t-rex sauropod",
    "dog": "dog cane cani dingo puppy dogs poodle guide-dog service-dog dog-face",
    "doll": "doll dolls bambola matrioska",
    "dolphin": "dolphin orca delfino porpoise",
    "donkey": "donkey mule asino",
    "door": "door porta",
    "doughnut": "doughnut donut ciambella",
    "dragon": "dragon drago dragon-face",
    "dragonfly": "dragonfly libellula libellule damselfly",
    "dress": "dress vestito sari",
    "drum": "drum africandrum djembe drumkit cymbal long-drum",
    "duck": "duck anatra ducks rubberduck papera duck1 duck2 mallard rubber-duck goose",
    "eagle": "eagle acquila aquila",
    "egg": "egg eggs uovo easter-egg",
    "eggplant": "eggplant aubergine melanzana",
    "elephant": "elephant elefante elefante01 elefante02 elefantone mammoth",
    "envelope": "envelope envelop busta mailto letter e-mail email love-letter",
    "eye": "eye eyes occhio",
    "fire": "fire fuoco flame fiamma",
    "fire engine": "fire-engine fire-truck firetruck",
    "fish": "fish goldfish pescetto angelfish loach cichlid gourami greyling salmon trout pesce "
    "clownfish blowfish tropicalfish",
    "flag": "flag bandiera greenflag checkeredflag whiteflag redflag yellowflag",
    "flamingo": "flamingo",
    "flashlight": "flashlight torch",
    "flower": "flower flowers daffodil magnolia sakura fiore daisy lily iris hibiscus marigold "
    "petunia gazania anemone anthurium flower1 flower2 flower3 flower4 flower5 flower6 flower7 "
    "flower8 flower9 flower10 orchid blossom lotus hyacinth poppy bouquet cherry-blossom",
    "fly": "fly mosquito zanzara moschito hoverfly",
    "folder": "folder cartella folder1 folder2 fldr",
    "fork": "fork forchetta",
    "fox": "fox volpe",
    "french fries": "french-fries fries",
    "frisbee": "frisbee flying-disc",
    "frog": "frog rana rana01 rana02 rana03 frogs toad",
    "garlic": "garlic aglio",
    "gear": "gear gears cog ingranaggio ruota-dentata",
    "gem": "gem gem-stone diamond ruby emerald diamante gemma",
    "ghost": "ghost fantasma",
    "gift": "gift regalo present wrapped-gift",
    "giraffe": "giraffe giraffa",
    "glass": "glass bicchiere martini tumbler wineglass wine-glass cocktail-glass tumbler-glass "
    "tropical-drink clinking-glasses",
    "glasses": "glasses eyeglasses goggles",
    "globe": "globe earth mappamondo globe-showing-americas",
    "glove": "glove gloves guanti boxing-glove",
    "goat": "goat capra stambecco",
    "grapes": "grapes grape uva",
    "guitar": "guitar chitarra",
    "gun": "gun pistol revolver ak47 m16 water-pistol",
    "hammer": "hammer martello mallet mallot",
    "hamster": "hamster criceto",
    "hand": "hand mano",
    "handbag": "handbag purse clutch-bag borsa borsetta",
    "hat": "hat cap fedora sombrero tophat toque cappello santahat billed-cap top-hat "
    "graduation-cap",
    "headphones": "headphones headphone cuffie",
    "heart": "heart cuore hearts",
    "hedgehog": "hedgehog riccio",
    "helicopter": "helicopter elicottero",
    "helmet": "helmet elmo bicycle-helmet motorbike-helmet",
    "hippopotamus": "hippopotamus hippo ippopotamo",
    "horse": "horse cavallo pony equine",
    "hot dog": "hot-dog hotdog",
    "hourglass": "hourglass",
    "house": "house home casa home0 home1 home2 home3 home4 home5 home6 home7 home8 home9 home10 "
    "home11 home12 home13 home14 home15 pinkhome pinkhome2 pinkhome3 chalet abitazione cottage "
    "swisshome igloo farm villa cityhouse hut house-with-garden",
    "ice cream": "cone glace gelato cone1 cone2 cone3 cone4 ice-cream icecream soft-ice-cream",
    "insect": "insect insetto bug grasshopper cavalletta mantis mantide mante woodlouse "
    "cockroach roach beetle ant formicona formichina caterpillar bruco worm",
    "jacket": "jacket coat",
    "jar": "jar",
    "jeans": "jeans",
    "jellyfish": "jellyfish medusa",
    "joystick": "joystick gamepad video-game game-controller",
    "kangaroo": "kangaroo canguro wallaby",
    "key": "key chiave keyring old-key",
    "keyboard": "keyboard tastiera computer-keyboard",
    "kite": "kite aquilone",
    "kiwi": "kiwi kiwi-fruit",
    "knife": "knife coltello kitchen-knife",
    "koala": "koala",
    "ladder": "ladder scala",
    "ladybug": "ladybug coccinella coccinelle coccinellona lady-beetle",
    "lamp": "lamp lampada desk-lamp",
    "lantern": "lantern lanterna paper-lantern",
    "laptop": "laptop portatile",
    "leaf": "leaf foglia foglie leaves",
    "lemon": "lemon lime lemon1",
    "leopard": "leopard jaguar panther leopardo",
    "lighthouse": "lighthouse faro",
    "lion": "lion leone lioness",
    "lipstick": "lipstick rossetto",
    "lizard": "lizard lucertola lucertolona lucertolone ramarro iguana gecko geko",
    "lobster": "lobster crawfish crawfish1 crawfish2",
    "lock": "lock padlock lucchetto serratura01 serratura02 locked unlocked locked-with-key "
    "locked-with-pen",
    "magnifying glass": "magnifying lens lente magnificator magnifing mag1 mag2 mag3 mag4 "
    "magnifying-glass",
    "mailbox": "mailbox mailbox1 mailbox2 mailbox3 postbox letterbox mailbox-with-lowered-flag "
    "mailbox-with-raised-flag",
    "mango": "mango",
    "meat": "meat steak cut-of-meat meat-on-bone poultry-leg drumstick prosciutto",
    "medal": "medal medaglia",
    "microphone": "microphone microfono",
    "microscope": "microscope microscopio",
    "mirror": "mirror specchio",
    "money": "money banknote dollar-banknote euro-banknote yen-banknote pound-banknote",
    "monitor": "monitor lcd screen schermo",
    "monkey": "monkey scimmia baboon orangutan chimpanzee gorilla",
    "moon": "moon luna crescent-moon full-moon",
    "motorcycle": "motorcycle moto motorbike motor-scooter motorscooter",
    "mountain": "mountain mount-fuji",
    "mouse": "mouse topo rat",
    "mushroom": "mushroom champignon toadstool cep fungo brown-mushroom",
    "newspaper": "newspaper giornale",
    "notebook": "notebook spiral-notepad notepad ledger",
    "octopus": "octopus polpo",
    "onion": "onion cipolla",
    "orange": "arancia mandarine mandarin tangerine orange",
    "owl": "owl gufo civetta",
    "paintbrush": "paintbrush brush pennello",
    "palm tree": "palm palmtree palm-tree palma",
    "pan": "pan padella frying-pan shallow-pan-of-food",
    "pancakes": "pancakes pancake",
    "panda": "panda",
    "paper": "paper page-facing-up page-with-curl receipt document scroll",
    "paperclip": "paperclip paperclips paper-clip",
    "parrot": "parrot macaw rosella",
    "peach": "peach pesca",
    "peacock": "peacock",
    "pear": "pear pera",
    "pen": "pen biro penna highlighter fountain-pen",
    "pencil": "pencil crayon matita",
    "penguin": "penguin pinguino pinguino1 pinguino2 pinguino3 pinguino4 tux",
    "pepper": "pepper peperoncino cayennepepperrevisited paprika chile chilepepper bell-pepper "
    "hot-pepper",
    "person": "man woman boy girl person people ragazza ragazzo donna signorina baby bride "
    "fireman dancer grandpa lady child youngster principessa queen king clown policeman cowboy "
    "soldier carpentiere1 carpentiere2 carpentiere3 traslocatore01 traslocatore02 traslocatore03 "
    "businessman nurse doctor santa police-officer firefighter astronaut cook health-worker "
    "farmer construction-worker detective guard ninja prince princess mage superhero snowboarder "
    "skier mermaid",
    "phone": "phone telephone handphone telefono cellular telephone-receiver mobile-phone "
    "cellphone touch-tone-telephone",
    "piano": "piano pianoforte musical-keyboard",
    "picture frame": "framed-picture picture-frame cornice",
    "pie": "pie flan",
    "pig": "pig porcinet maiale boar boars",
    "pill": "pill pills",
    "pineapple": "pineapple ananas",
    "pizza": "pizza",
    "planet": "planet saturn jupiter mars neptune uranus venus mercury pluto ringed-planet",
    "plant": "plant plants potted-plant seedling herb",
    "plate": "plate piatto",
    "police car": "police-car",
    "popcorn": "popcorn",
    "pot": "pot-of-food pentola cooking-pot pot",
    "potato": "potato potatoes patata sweet-potato",
    "printer": "printer stampante laserprinter printer1",
    "pumpkin": "pumpkin pumpkin2 zucca jackolantern jack-o-lantern",
    "pushpin": "pushpin push-pin thumbtack puntina",
    "puzzle": "puzzle puzzle-piece",
    "rabbit": "rabbit bunny coniglio hare",
    "raccoon": "raccoon",
    "racket": "racket badminton ping-pong",
    "radio": "radio jukebox",
    "rhinoceros": "rhinoceros rhino rinoceronte",
    "ribbon": "ribbon reminder-ribbon",
    "rice": "cooked-rice rice-ball curry-rice",
    "ring": "ring anello",
    "robot": "robot",
    "rock": "rock roccia stone",
    "rocket": "rocket shuttle razzo",
    "rooster": "rooster gallo galletto",
    "rose": "rose rosa rosa1 rosa2 wilted-flower",
    "ruler": "ruler righello",
    "salad": "salad green-salad insalata",
    "sandal": "sandal sandals flipflop crocs",
    "sandwich": "sandwich tramezzino",
    "saw": "saw sega motosega carpentry-saw",
    "saxophone": "saxophone sax",
    "scale": "scale balance-scale bilancia",
    "scarf": "scarf sciarpa",
    "scissors": "scissors forbici",
    "scooter": "kick-scooter scooter",
    "scorpion": "scorpion scorpione",
    "screwdriver": "screwdriver cacciavite",
    "seahorse": "seahorse",
    "seal": "seal foca",
    "shark": "shark squalo",
    "sheep": "sheep pecora pecorella lamb ram ewe",
    "shell": "shell conchiglia mussel abalone spiral-shell oyster",
    "shield": "shield scudo",
    "shirt": "shirt tshirt maglietta poloshirt t-shirt running-shirt blouse womans-clothes sweater",
    "shoe": "shoe shoes sneaker scarpa high-heeled-shoe ballet-shoes running-shoe mans-shoe "
    "flat-shoe tennis-shoe tennis-shoes",
    "shorts": "shorts briefs",
    "shovel": "shovel spade pala trowel",
    "shrimp": "shrimp prawn",
    "sign": "sign cartello signal signpost",
    "skate": "ice-skate roller-skate skates",
    "skateboard": "skateboard",
    "skis": "skis ski-boot",
    "skull": "skull teschio",
    "snail": "snail lumaca slug",
    "snake": "snake serpente cobra",
    "snowflake": "snowflake fiocco-di-neve",
    "snowman": "snowman",
    "soccer ball": "soccer-ball",
    "sock": "sock socks calzettoni stocking",
    "spaghetti": "spaghetti pasta",
    "spider": "spider ragno ragnetto",
    "spoon": "spoon cucchiaio",
    "squirrel": "squirrel chipmunk scoiattolo",
    "star": "star stella glowing-star",
    "stop sign": "stop-sign",
    "strawberry": "strawberry raspberry",
    "stuffed animal": "teddy teddybear plush teddy-bear",
    "suitcase": "suitcase valigie luggage baggage",
    "sun": "sun sole",
    "sunflower": "sunflower girasole",
    "sunglasses": "sunglasses occhiali",
    "sushi": "sushi",
    "swan": "swan cigno",
    "sword": "sword katana longsword spada dagger crossed-swords",
    "table": "table tavolo desk",
    "taco": "taco burrito",
    "tank": "tank abrams",
    "taxi": "taxi",
    "teapot": "teapot teiera kettle",
    "television": "television tv televisione",
    "tennis ball": "tennis-ball tennis",
    "tent": "tent tenda tepee circus-tent",
    "tie": "tie necktie cravatta",
    "tiger": "tiger tigre",
    "toilet": "toilet",
    "tomato": "tomato pomodori pomodoro",
    "tooth": "tooth dente",
    "toothbrush": "toothbrush",
    "tractor": "tractor trattore",
    "traffic light": "stoplight semaforo traffic-light horizontal-traffic-light "
    "vertical-traffic-light trafficlight",
    "train": "train locomotive tram treno bullet-train railway-car light-rail monorail metro "
    "tram-car",
    "trash can": "wastebasket garbagecan trashcan trash-bin trash",
    "tree": "tree albero arbre evergreen pine oak birch",
    "trophy": "trophy coppa",
    "truck": "truck lorry camion articulated-lorry delivery-truck pickup-truck",
    "trumpet": "trumpet tromba horn trombone postal-horn",
    "tulip": "tulip tulips",
    "turkey": "turkey tacchino",
    "turtle": "turtle tartaruga tortoise",
    "umbrella": "umbrella ombrello ombrelloni closed-umbrella",
    "unicorn": "unicorn",
    "van": "van minibus",
    "vase": "vase vaso amphora pitcher jug urn",
    "violin": "violin cello viola",
    "volleyball": "volleyball",
    "watch": "watch wristwatch smartwatch",
    "watermelon": "watermelon pasteque",
    "whale": "whale bluewhale balena beluga narwhal",
    "wheel": "wheel ruota",
    "wheelchair": "wheelchair manual-wheelchair motorized-wheelchair",
    "windmill": "windmill",
    "window": "window",
    "wolf": "wolf lupo",
    "wreath": "wreath ghirlande",
    "wrench": "wrench spanner",
    "yo-yo": "yoyo yo-yo",
    "zebra": "zebra",
}

# Phrases that name none of the classes, though they contain a word of one.
_NOT_CLASSES = (
    "because-a-brain naval-shell white-cane clam-shell-mobile curling-stone honey-pot "
    "sheaf-of-rice first-aid-bag beverage-box table-tennis pattern-diamond pattern-puzzle "
    "pill-button mountain-dulcimer cd-jacket coat-of-arms lightning-bolt for-the-guard van-gogh "
    "metro-avvolgibile goal-posts rock-rpswb sacco-a-pelo onion-rings potato-chips "
    "trekking-in-montagna chess-game tamerlane-chess school-hallway colorful-bow ring-buoy "
    "confetti-ball crystal-ball fire-extinguisher ferris-wheel bento-box computer-disk "
    "pine-decoration diving-mask police-car-light four-leaf-clover white-flower nest-with-eggs "
    "moka-pot electric-coffee auto-rickshaw fire-extinguisher diya-lamp mouse-pointer hand-drawn "
    "farmer-onelette money-with-wings satellite-antenna satellite-dish clothes-hanger ear-of-rice "
    "nest-of butterfly-fish hot-dog-stand fish-cake star-of-david dog-tag horse-racing mouse-trap "
    "spider-web cat-with-tears fried-egg sun-behind hen-of pig-nose fishing-pole fishing-net "
    "rice-cracker drop-of-blood mouse-pad piggy-bank butterfly-net pencil-sharpener lamp-post "
    "hammer-and-pick hammer-and-wrench hammer-and-sickle fork-and-knife knife-and-fork cloud-with "
    "crab-nebula dragon-fruit apple-computer tree-house bird-house bird-cage dog-house horse-shoe "
    "horseshoe guitar-amplifier ring-binder key-board moon-cake moon-viewing water-bottle-rocket "
    "coffee-grinder coffee-bean money-bag flower-playing-cards flower-pot plant-pot chess-board "
    "bread-knife pizza-cutter card-game chocolate-egg night-with-stars goal-net sewing-needle "
    "rolled-up hot-water-bottle house-plant lion-dance lawn-mower first-aid gold-bar "
    "washing-machine wheelbarrow pepper-mill water-pump star-fish starfish hot-air heart-of "
    "pepper-mill salt-mill mechanical-arm carousel-horse person-in gold-fish-bowl roll-of-paper "
    "medical-mask fire-cracker safety-pin pound-sign mountain-bike fortune-teller tank-top "
    "tennis-racket card-index file-cabinet nail-polish shaved-ice hand-fan camera-film snow-globe "
    "balloon-dog bat-and-ball baseball-bat cricket-bat cricket-game fire-place fireplace "
    "fire-works fireworks book-shelf bookshelf bookcase book-worm ear-ring earring dragon-boat "
    "swan-boat plane-tree ticket-office window-blind sea-lion sunrise sunset sun-dial "
    "traffic-sign fire-hydrant rock-guitar rock-star rock-music "
)

# Words that name no object in training captions, but that a user or a benchmark may type.
MORE_NOUNS = (
    "accordion animal arrow axe bag bathtub bed bench bikini binoculars blanket blender block "
    "bookcase bracelet bridge broom building bull bush button cabinet calf cap cart cartoon case "
    "chain charger city coat container cooler couch crane cube curtain cushion desk dish doll "
    "donkey drawer dresser earring elk engine figure figurine fence fire fireplace food fridge "
    "fruit furniture game garden glasses goat goose hair handbag headphones helmet hose hut ipod "
    "jacket jar jeans jewel jug kettle lantern leash letter lid lipstick locomotive machine "
    "magazine map mask medal microphone microwave mirror monster mountain mug napkin necklace "
    "newspaper notebook oven owner pack package paddle painting palm pants paper parrot pastry "
    "peach pet photo picture pillow pistol plane plant player plush pole police pony pot potato "
    "poster purse puppy puzzle racket rat refrigerator remote ring road rock rooster rope rug sack "
    "sail salad sauce scale scarf scooter screen sculpture seal seat shark shelf ship shop shorts "
    "sink skateboard ski skirt sky slipper sneaker snow snowboard soap soccer sofa spatula speaker "
    "statue stone stool stove street string stuffed suit sweater swimmer swing tape tea teddy "
    "telephone tie tire toaster toilet tool towel tower toy tray tricycle trolley trophy "
    "tub tulip van vegetable vehicle vest video waffle wagon wall wallet washer watch water wheel "
    "wheelchair window wine wing wolf woman man boy girl child baby zebra zipper can candle "
    "backpack dog cat bear plushie boot berry robot duck rose kitten human women men hydrant "
    "parking meter sports surfboard tennis hot donut potted dining tv cell drier dryer stop "
    "berries poop emoji rc sloth fancy shiny colorful "
)

CAPTION_WORDS = (
    "a an photo of and with the on in background this my one two three many some "
    "black white grey red green blue yellow brown pink purple small large left right above below "
    "behind front sticker drawing object thing close up at is it to from by for other"
)

# Better-known names of some classes; captions use either name.
SYNONYMS: dict[str, str] = {
    "shoe": "sneaker",
    "cup": "mug",
    "stuffed animal": "plushie",
    "person": "human",
    "phone": "telephone",
    "couch": "sofa",
    "doughnut": "donut",
    "television": "tv",
    "airplane": "plane",
    "boat": "ship",
    "glass": "drink",
}

BACKGROUND = "background"


def _classes_of_phrases() -> dict[str, set[str]]:
    """By phrase, in lower case with spaces: the classes that it names, or none."""
    found: dict[str, set[str]] = {
        phrase.replace("-", " "): set() for phrase in _NOT_CLASSES.split()
    }
    for name, phrases in CLASSES.items():
        # The name of a class of two words counts as a whole only.
        for phrase in [*phrases.split(), name]:
            found.setdefault(phrase.replace("-", " "), set()).add(name)
    return found


_CLASSES_OF_PHRASE = _classes_of_phrases()
_MOST_WORDS = max(len(phrase.split()) for phrase in _CLASSES_OF_PHRASE)


def class_of(text: str) -> str | None:
    """The class that a file name's stem or a description names; None for none or several.

    From left to right, the longest phrase counts: a teddy bear is no bear, a hot dog is no dog.

    >>> class_of("teapot_ganson"), class_of("dog_and_cat"), class_of("jean_victor")
    ('teapot', None, None)
    >>> class_of("teddy-bear"), class_of("fish-cake-with-swirl")
    ('stuffed animal', None)
    """
    words = re.findall(r"[a-z]+\d*|\d+[a-z]*", text.lower())
    found: set[str] = set()
    place = 0
    while place < len(words):
        for length in range(_MOST_WORDS, 0, -1):
            phrase = " ".join(words[place : place + length])
            if phrase in _CLASSES_OF_PHRASE:
                found |= _CLASSES_OF_PHRASE[phrase]
                break
        place += length
    return found.pop() if len(found) == 1 else None


def vocabulary() -> list[str]:
    """Every word that the model knows, in a fixed order, without the special tokens."""
    words = {BACKGROUND}
    for name in (*CLASSES, *SYNONYMS.values(), *MORE_NOUNS.split(), *CAPTION_WORDS.split()):
        words.update(name.replace("-", " ").split())
    return sorted(words)
