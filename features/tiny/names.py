"""What pictures are called: classes, the words that betray them in file names, the vocabulary.

Openclipart's file names mix English, Italian and French with their authors' names; a picture has a
class only when its file name (or Tux Paint's description) holds words of exactly one class.
"""

from __future__ import annotations

import re

# class name -> words (in lower case, whole words) that name it in a file name or a description
CLASSES: dict[str, str] = {
    "airplane": "airplane aircraft plane jet raptor aereo",
    "apple": "apple apples mela",
    "backpack": "backpack zaino rucksack",
    "ball": "ball basketball volleyball football beachball basebalm baseball 8ball 9ball ballon",
    "balloon": "balloon balloons ballons palloncini mongolfiera aerestatico",
    "banana": "banana bananas",
    "barrel": "barrel barile",
    "bat": "bat pipistrello",
    "battery": "battery pila",
    "bear": "bear orso bears",
    "bee": "bee ape abeille hornet wasp vespa",
    "bell": "bell bells campana",
    "bicycle": "bicycle bike bicicletta vtt",
    "bird": "bird uccello gull seagull gabbiano dove crow acquila aquila eagle cormorant puffin "
    "flamand pennuto01 pennuto02 bluebird parrot sparrow heron pelican ostrich struzzo robin "
    "stork pigeon colombo colombo2 flamingo toucan magpie rosella kookaburra finch",
    "boat": "boat ship sailboat trawler canoe barca nave veliero",
    "book": "book books libro bible",
    "boot": "boot boots stivale stivali",
    "bottle": "bottle bottled bottiglia biberon",
    "bowl": "bowl scodella soup ciotola",
    "box": "box boxes scatola scatolone",
    "bread": "bread toast baguette pane",
    "bucket": "bucket secchio",
    "bulb": "bulb lightbulb lampadina",
    "burger": "burger hamburger",
    "bus": "bus bus1 bus2",
    "butterfly": "butterfly farfalla farfalle xanthia",
    "cactus": "cactus cacuts",
    "cake": "cake torta gateau cake1 muffin muffin1 muffin2 muffin3 cupcake pudding",
    "calculator": "calculator calcolatrice",
    "camel": "camel cammello dromedary",
    "camera": "camera camcorder fotografica telecamera",
    "can": "can lattine garbagecan",
    "candle": "candle candela menorah candles",
    "candy": "candy lollipop",
    "car": "car auto autos hummer bmw redcar sportcar skoda blazer cobra dodge toyota chevrolet "
    "celebrit 4wd beetle",
    "carrot": "carrot carrots",
    "castle": "castle fort fortress castello",
    "cat": "cat gatto gatti housecat kitten",
    "chair": "chair sedia poltrona",
    "cheese": "cheese formaggio",
    "cherry": "cherry cherries",
    "chicken": "chicken hen rooster pollo gallo gallina chick galletto",
    "church": "church cathedral monastery chiesa",
    "clock": "clock orologio cronometro stopwatch clockface alarm sveglia watch",
    "cloud": "cloud clouds nuvola",
    "coin": "coin penny nickel dime coins cent",
    "compass": "compass bussola",
    "computer": "computer workstation desktop server computer1 computer2 tower pc",
    "corn": "corn pannocchia",
    "cow": "cow mucca bull toro vacca bison ox mhooo calf",
    "crab": "crab crawfish1 crawfish2 crawfish lobster granchio",
    "crown": "crown couronne corona",
    "cup": "cup mug teacup coffee tazza kubek cuppa coffe",
    "deer": "deer fawn antilope moose elk reindeer",
    "dice": "dice die dado",
    "dinosaur": "dino dinosauro dinosauri dinosaur",
    "dog": "dog cane cani dingo puppy dogs",
    "dolphin": "dolphin orca delfino",
    "door": "door porta",
    "dragon": "dragon drago",
    "dragonfly": "dragonfly libellula libellule damselfly",
    "dress": "dress vestito",
    "drum": "drum africandrum djembe drumkit cymbal",
    "duck": "duck anatra ducks rubberduck papera duck1 duck2 goose swan cigno mallard",
    "egg": "egg eggs uovo",
    "elephant": "elephant elefante elefante01 elefante02 elefantone",
    "envelope": "envelope envelop busta mailto letter",
    "eye": "eye eyes occhio",
    "fish": "fish goldfish pescetto angelfish loach cichlid gourami greyling salmon trout pesce "
    "shark clownfish",
    "flag": "flag bandiera greenflag checkeredflag whiteflag redflag yellowflag",
    "flower": "flower flowers rose rosa1 rosa2 rosa daffodil tulips tulip magnolia sunflower "
    "sakura fiore daisy lily iris hibiscus marigold petunia gazania anemone anthurium flower1 "
    "flower2 flower3 flower4 flower5 flower6 flower7 flower8 flower9 flower10 orchid",
    "fly": "fly mosquito zanzara moschito hoverfly",
    "folder": "folder cartella folder1 folder2 fldr",
    "fork": "fork forchetta",
    "fox": "fox wolf volpe lupo",
    "frog": "frog rana rana01 rana02 rana03 frogs toad",
    "ghost": "ghost fantasma",
    "gift": "gift regalo present",
    "giraffe": "giraffe giraffa",
    "glass": "glass glasses bicchiere martini",
    "globe": "globe earth mappamondo",
    "glove": "glove gloves guanti",
    "grapes": "grapes grape uva",
    "guitar": "guitar chitarra",
    "gun": "gun pistol revolver ak47 m16",
    "hammer": "hammer martello mallet mallot",
    "hand": "hand mano",
    "hat": "hat cap fedora sombrero tophat toque cappello helmet santahat",
    "heart": "heart cuore hearts",
    "helicopter": "helicopter elicottero",
    "horse": "horse cavallo pony zebra donkey equine mule",
    "house": "house home casa home0 home1 home2 home3 home4 home5 home6 home7 home8 home9 home10 "
    "home11 home12 home13 home14 home15 pinkhome pinkhome2 pinkhome3 chalet abitazione cottage "
    "swisshome igloo farm villa cityhouse",
    "ice cream": "cone glace gelato cone1 cone2 cone3 cone4",
    "insect": "insect insetto bug beetle ant grasshopper cavalletta mantis mantide formicona "
    "formichina mante woodlouse caterpillar",
    "kangaroo": "kangaroo canguro wallaby",
    "key": "key chiave keyring",
    "keyboard": "keyboard tastiera",
    "kite": "kite aquilone",
    "knife": "knife coltello",
    "ladder": "ladder scala",
    "ladybug": "ladybug coccinella coccinelle coccinellona",
    "lamp": "lamp lampada lantern",
    "laptop": "laptop portatile notebook",
    "leaf": "leaf foglia foglie leaves",
    "lemon": "lemon lime lemon1",
    "lighthouse": "lighthouse faro",
    "lion": "lion leone",
    "lizard": "lizard lucertola lucertolona lucertolone ramarro iguana gecko geko",
    "lock": "lock padlock lucchetto serratura01 serratura02",
    "magnifying glass": "magnifying lens lente magnificator magnifing mag1 mag2 mag3 mag4",
    "mailbox": "mailbox mailbox1 mailbox2 mailbox3",
    "monitor": "monitor lcd screen schermo",
    "monkey": "monkey scimmia baboon orangutan gorilla chimpanzee ape",
    "moon": "moon luna",
    "motorcycle": "motorcycle moto scooter motorbike",
    "mouse": "mouse topo rat hamster chipmunk",
    "mushroom": "mushroom champignon toadstool cep fungo",
    "orange": "orange arancia mandarine mandarin",
    "owl": "owl gufo civetta",
    "paintbrush": "paintbrush brush pennello",
    "pan": "pan pot padella pentola",
    "pear": "pear pera",
    "pen": "pen biro penna highlighter",
    "pencil": "pencil crayon matita",
    "penguin": "penguin pinguino pinguino1 pinguino2 pinguino3 pinguino4 tux",
    "pepper": "pepper peperoncino cayennepepperrevisited paprika chile chilepepper",
    "person": "man woman boy girl person people ragazza ragazzo donna signorina baby bride fireman "
    "dancer grandpa lady child youngster principessa queen king clown santa policeman cowboy "
    "soldier carpentiere1 carpentiere2 carpentiere3 traslocatore01 traslocatore02 "
    "traslocatore03 businessman nurse doctor",
    "phone": "phone telephone handphone telefono cellular mobile",
    "piano": "piano pianoforte",
    "pie": "pie flan",
    "pig": "pig porcinet maiale boar boars",
    "pineapple": "pineapple ananas",
    "pizza": "pizza",
    "planet": "planet saturn jupiter mars neptune uranus venus mercury pluto",
    "plate": "plate piatto",
    "printer": "printer stampante laserprinter printer1",
    "pumpkin": "pumpkin pumpkin2 zucca jackolantern lantern",
    "rabbit": "rabbit bunny coniglio hare",
    "radio": "radio jukebox",
    "robot": "robot",
    "rocket": "rocket shuttle razzo",
    "sandwich": "sandwich tramezzino",
    "saw": "saw sega motosega",
    "scissors": "scissors forbici",
    "screwdriver": "screwdriver cacciavite",
    "seahorse": "seahorse",
    "sheep": "sheep pecora pecorella goat capra lamb ram stambecco",
    "shell": "shell conchiglia mussel abalone",
    "shield": "shield scudo",
    "shirt": "shirt tshirt maglietta poloshirt jacket coat sweater",
    "shoe": "shoe shoes sneaker sandals scarpa sandal",
    "shovel": "shovel spade pala trowel",
    "sign": "sign cartello signal",
    "skull": "skull teschio",
    "snail": "snail lumaca slug",
    "snake": "snake serpente cobra",
    "snowman": "snowman",
    "sock": "sock socks calzettoni stocking",
    "spider": "spider ragno ragnetto scorpion",
    "spoon": "spoon cucchiaio",
    "squirrel": "squirrel beaver",
    "star": "star stella",
    "strawberry": "strawberry raspberry",
    "stuffed animal": "teddy teddybear plush",
    "suitcase": "suitcase valigie luggage baggage",
    "sun": "sun sole",
    "sunglasses": "sunglasses occhiali",
    "sword": "sword katana longsword spada",
    "table": "table tavolo desk",
    "tank": "tank abrams",
    "teapot": "teapot teiera kettle",
    "television": "television tv televisione",
    "tent": "tent tenda tepee",
    "tiger": "tiger tigre leopard jaguar panther lioness",
    "toilet": "toilet",
    "tomato": "tomato pomodori pomodoro",
    "tooth": "tooth dente",
    "toothbrush": "toothbrush",
    "traffic light": "stoplight semaforo",
    "train": "train locomotive tram treno",
    "tree": "tree albero arbre palm palmtree evergreen pine oak birch",
    "truck": "truck lorry ambulans ambulanza engine camion tractor trattore",
    "trumpet": "trumpet tromba horn trombone",
    "turkey": "turkey tacchino",
    "turtle": "turtle tartaruga tortoise",
    "umbrella": "umbrella ombrello ombrelloni",
    "vase": "vase vaso amphora pitcher jar jug",
    "violin": "violin cello viola",
    "watermelon": "watermelon pasteque melon",
    "whale": "whale bluewhale seal",
    "windmill": "windmill",
    "wreath": "wreath ghirlande",
    "wrench": "wrench spanner",
    "yo-yo": "yoyo",
}

# Words that are never in the training captions' objects but that a user or a benchmark may type.
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
    "backpack dog cat bear plushie boot berry robot duck rose kitten human women men "
)

CAPTION_WORDS = (
    "a an photo of and with the on in background this my one two three many some "
    "black white grey red green blue yellow brown pink purple small large left right above below "
    "behind front sticker drawing object thing close up at is it to from by for other"
)

# Classes under which more people would look for a class of ours; captions use either.
SYNONYMS: dict[str, str] = {
    "shoe": "sneaker",
    "cup": "mug",
    "clock": "watch",
    "stuffed animal": "plushie",
    "person": "human",
    "phone": "telephone",
    "airplane": "plane",
    "boat": "ship",
    "glass": "drink",
}

BACKGROUND = "background"

_CLASS_OF_WORD: dict[str, set[str]] = {}
for _name, _words in CLASSES.items():
    for _word in [*_words.split(), *([] if " " in _name else [_name])]:
        _CLASS_OF_WORD.setdefault(_word, set()).add(_name)


def class_of(text: str) -> str | None:
    """The class a file name's stem or a description speaks of; None when none or several.

    >>> class_of("teapot_ganson"), class_of("dog_and_cat"), class_of("jean_victor")
    ('teapot', None, None)
    """
    words = re.findall(r"[a-z]+\d*|\d+[a-z]+", re.sub(r"hot.?dog", "", text.lower()))
    found: set[str] = set()
    for word in words:
        found |= _CLASS_OF_WORD.get(word, set())
    return found.pop() if len(found) == 1 else None


def vocabulary() -> list[str]:
    """Every word the model knows, in a fixed order, without the special tokens."""
    words = {BACKGROUND}
    for name in (*CLASSES, *SYNONYMS.values(), *MORE_NOUNS.split(), *CAPTION_WORDS.split()):
        words.update(name.replace("-", " ").split())
    return sorted(words)
